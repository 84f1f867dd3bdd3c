"""HQQ's half-quadratic rounding, without data, on the CPU. Runs in an environment with ``hqq``; its defaults.

Groups lie along the inputs (``axis=1``), as everywhere here. Its zeros are real numbers, so a group stores 16 bits
more for its own than an integer zero takes.
"""

from __future__ import annotations

import common
import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from transformers import AutoModelForCausalLM


def main() -> None:
    args = common.parser(__doc__.splitlines()[0]).parse_args()
    run = common.Run(args)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    config = BaseQuantizeConfig(nbits=args.bits, group_size=args.group, axis=1)
    linears = common.linears(model, args.keep)
    with run.timed():
        packed = {
            name: HQQLinear(module, config, compute_dtype=torch.float32, device="cpu", del_orig=False)
            for name, module in linears.items()
        }
    weights = {}
    for name, one in packed.items():
        for part in ("scale", "zero"):
            one.meta[part] = one.meta[part].half().float()  # what a checkpoint in 16 bits would store
        weights[name] = one.dequantize().float()
    changed = common.save_dequantized(args, weights)
    settings = {"axis": "1", **{name: str(value) for name, value in config["weight_quant_params"].items()}}
    run.record(["hqq"], linears=changed, bits_per_weight=args.bits + 32 / args.group, settings=settings)


if __name__ == "__main__":
    main()
