"""torchao's integer weights, without data, on the CPU. Runs in an environment with ``torchao``.

``--hqq`` lets it choose scales by its half-quadratic search instead of by the largest weight.
"""

from __future__ import annotations

import common
import torch
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup
from torchao.quantization.quant_primitives import MappingType
from transformers import AutoModelForCausalLM


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--hqq", action="store_true", help="its half-quadratic search for scales")
    args = parser.parse_args()
    run = common.Run(args)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    config = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{args.bits}"),
        granularity=PerGroup(args.group),
        mapping_type=MappingType.SYMMETRIC if args.symmetric else MappingType.ASYMMETRIC,
        scale_dtype=torch.float16,
        **({"intx_choose_qparams_algorithm": "hqq_scale_only"} if args.hqq else {}),
    )
    linears = common.linears(model, args.keep)
    with run.timed():
        quantize_(model, config, filter_fn=lambda _, name: name in linears)
    weights = {name: model.get_submodule(name).weight.dequantize().float() for name in linears}
    changed = common.save_dequantized(args, weights)
    run.record(["torchao"], linears=changed, settings={"hqq": str(args.hqq), "scale_dtype": "float16"})


if __name__ == "__main__":
    main()
