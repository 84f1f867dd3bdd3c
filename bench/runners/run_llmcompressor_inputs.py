"""llm-compressor on weights and inputs, on the CPU: GPTQ, nearest, or SmoothQuant before GPTQ. Runs in an environment
with ``llmcompressor`` and writes a compressed-tensors folder into ``--out``."""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}
TOKEN, TENSOR = {"strategy": "token", "dynamic": True}, {"strategy": "tensor", "dynamic": False}
SCHEMES = {
    "W8A8": ({**INT8, "strategy": "channel"}, {**INT8, **TOKEN}),
    "W8A8-static": ({**INT8, "strategy": "channel"}, {**INT8, **TENSOR}),
    "W4A8": ({**INT8, "num_bits": 4, "strategy": "group", "group_size": 128}, {**INT8, **TOKEN}),
    "FP8A8": ({**FLOAT8, "strategy": "channel"}, {**FLOAT8, **TOKEN}),
    "FP8A8-static": ({**FLOAT8, "strategy": "tensor"}, {**FLOAT8, **TENSOR}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--windows", required=True, help="safetensors file with the int64 tensor `windows` [n, L]")
    parser.add_argument("--scheme", choices=SCHEMES, required=True)
    parser.add_argument("--way", choices=["nearest", "gptq", "smooth"], required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    windows = load_file(args.windows)["windows"]
    data = Dataset.from_list([{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in windows])
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto").eval()
    weights, inputs = SCHEMES[args.scheme]
    kind = QuantizationModifier if args.way == "nearest" else GPTQModifier
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}
    recipe = [kind(config_groups=groups, ignore=["lm_head"])]
    if args.way == "smooth":
        from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

        recipe.insert(0, SmoothQuantModifier(smoothing_strength=0.5))
    oneshot(
        model=model,
        recipe=recipe,
        dataset=data,
        num_calibration_samples=len(data),
        max_seq_length=windows.shape[1],
    )
    model.save_pretrained(args.out, save_compressed=True)
    AutoTokenizer.from_pretrained(args.model).save_pretrained(args.out)


if __name__ == "__main__":
    main()
