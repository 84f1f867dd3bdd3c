"""llm-compressor's GPTQ on the CPU. Runs in an environment with ``llmcompressor``; its defaults (static act-order).

It keeps its scales in the model's type. ``--scales float16`` rounds them to what a checkpoint would store before the
codes are decoded; the codes themselves were chosen with the unrounded scale. The float formats have stored types for
their scales (FP8: that of the model). ``--nearest`` is its data-free way, ``--observer`` how it chooses scales.
"""

from __future__ import annotations

import argparse

import common
import torch
from clock import Clock
from compressed_tensors.quantization import fake_quantize
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import AutoModelForCausalLM, PreTrainedModel

# Weight-only, as its presets NVFP4A16, MXFP4A16 and FP8_DYNAMIC have them.
FLOATS = {
    "FP8": {"num_bits": 8, "strategy": "channel"},
    "NVFP4": {"num_bits": 4, "strategy": "tensor_group", "group_size": 16, "scale_dtype": torch.float8_e4m3fn},
    "MXFP4": {"num_bits": 4, "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
}


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--scales", choices=["float16", "float32"], default="float16")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="float32", help="to compute in")
    parser.add_argument("--time-only", action="store_true", help="write result.json alone")
    parser.add_argument("--nearest", action="store_true", help="round to nearest, without data")
    parser.add_argument("--observer", help="of its own, such as memoryless_mse; its default otherwise")
    args = parser.parse_args()
    run = common.Run(args)
    windows = common.read_windows(args.windows)
    data = Dataset.from_list(common.samples(windows))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype).eval()
    numbers = {
        "num_bits": args.bits,
        "type": "int",
        "symmetric": args.symmetric,
        "strategy": "group",
        "group_size": args.group,
    }
    if args.scheme:
        numbers = {"type": "float", "symmetric": True, **FLOATS[args.scheme]}
    if args.observer:
        numbers["observer"] = args.observer
    kind = QuantizationModifier if args.nearest else GPTQModifier
    modifier = kind(
        config_groups={"group_0": {"targets": ["Linear"], "weights": numbers}},
        ignore=["lm_head", *([f"re:.*{args.keep}.*"] if args.keep else [])],
    )
    entered = watch_blocks(model)
    some = {} if args.nearest else {"dataset": data, "num_calibration_samples": len(data)}
    with run.timed():
        oneshot(model=model, recipe=[modifier], max_seq_length=windows.shape[1], **some)

    linears = None
    if not args.time_only:
        linears = common.save_dequantized(args, decoded(model, args))
    run.record(
        ["llmcompressor", "compressed-tensors"],
        linears=linears,
        scales=args.scales,
        dtype=str(model.dtype),
        **entered.between(),
        settings={n: str(getattr(modifier, n, None)) for n in ["actorder", "dampening_frac", "block_size"]},
    )


def watch_blocks(model: PreTrainedModel) -> Clock:
    """A clock that marks the moments when each block is first entered.

    Its sequential pipeline works block by block (calibrate, quantize, run again), so a difference of neighbours is
    the whole time of one block, without loading and tracing. The last block shares its turn with the final norm and
    the head and is left out.
    """
    entered = Clock()
    seen: set[torch.nn.Module] = set()

    def enter(module: torch.nn.Module, inputs: object) -> None:
        if module not in seen:
            seen.add(module)
            entered.mark()

    for block in model.get_decoder().layers:
        block.register_forward_pre_hook(enter)
    return entered


def decoded(model: PreTrainedModel, args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """The values of the quantized linears, by module name, fp32 [out, in]."""
    weights = {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if not isinstance(module, torch.nn.Linear) or scheme is None or scheme.weights is None:
            continue
        scale, zero = module.weight_scale, getattr(module, "weight_zero_point", None)
        whole = getattr(module, "weight_global_scale", None)
        weight = fake_quantize(module.weight, scale, zero, scheme.weights, whole)
        if args.scales == "float16" and not args.scheme:
            ratio = scale.half().float() / scale  # the codes stay, their scale changes: one factor a group
            weight = weight * ratio.repeat_interleave(args.group, dim=1)[:, : weight.shape[1]]
        weights[name] = weight.detach().float()
    return weights


if __name__ == "__main__":
    main()
