"""GPTQModel's GPTQ on the CPU. Runs in an environment with ``gptqmodel``; its defaults unless said otherwise.

The scales are fp16, as GPTQModel stores them: the packed checkpoint is saved, read back, and decoded from its codes,
so what is measured is what a user would load. Decoding is done in fp32 (the kernel itself would round the product
to fp16 once more), which favours the peer slightly.
"""

from __future__ import annotations

import os
from pathlib import Path

# 7.7.0 asks for two loader workers and refuses to start where it counts fewer cores.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import common
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--mse", type=float, default=0.0, help="0: min-max scales; 2.4: the shrink search")
    args = parser.parse_args()
    run = common.Run(args)
    config = QuantizeConfig(
        bits=args.bits,
        group_size=args.group,
        sym=args.symmetric,
        desc_act=False,
        mse=args.mse,
        device="cpu",
        dynamic={f"-:.*{args.keep}.*": {}} if args.keep else None,
    )
    rows = common.samples(common.read_windows(args.windows))
    # Its packed linears accept fp16 and bf16 only, so the original is read in fp16.
    model = GPTQModel.load(args.model, config, dtype=torch.float16)
    with run.timed():
        model.quantize(rows, batch_size=4)
    native = str(Path(args.out) / "native")
    model.save(native)

    packed = GPTQModel.load(native, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16)
    weights, scale_types = {}, set()
    for name, module in packed.model.named_modules():
        if not hasattr(module, "dequantize_weight"):
            continue
        scale_types.add(str(module.scales.dtype))
        module.scales = module.scales.float()
        weights[name] = module.dequantize_weight().T.float().contiguous()  # it returns [in, out]
    changed = common.save_dequantized(args, weights)
    names = ["damp_percent", "act_group_aware", "desc_act", "mse", "sym", "format"]
    settings = {name: str(getattr(config, name)) for name in names}
    run.record(["gptqmodel"], linears=changed, scale_types=sorted(scale_types), settings=settings)


if __name__ == "__main__":
    main()
