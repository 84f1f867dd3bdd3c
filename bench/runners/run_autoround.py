"""auto-round's SignRound on the CPU. Runs in an environment with ``auto-round``; its defaults unless said otherwise.

Weights are taken from the tuned model in memory: 0.16.1 puts the original's back where it saves an fp32 checkpoint
decoded. They are what its codes stand for under the scales it stores.
"""

from __future__ import annotations

import common
import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--iters", type=int, default=200, help="steps of sign descent a block")
    parser.add_argument("--alg-ext", action="store_true", help="its own extension of the algorithm")
    args = parser.parse_args()
    run = common.Run(args)
    windows = common.read_windows(args.windows)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    names = list(common.linears(model, args.keep))
    kept = common.linears(model).keys() - set(names)
    tuner = AutoRound(
        model,
        AutoTokenizer.from_pretrained(args.model),
        bits=args.bits,
        group_size=args.group,
        sym=args.symmetric,
        iters=args.iters,
        nsamples=len(windows),
        seqlen=windows.shape[1],
        batch_size=8,
        dataset=[row[None] for row in windows],
        device_map="cpu",
        enable_torch_compile=False,
        enable_alg_ext=args.alg_ext,
        layer_config={name: {"bits": 16} for name in sorted(kept)},
    )
    with run.timed():
        tuned, layers = tuner.quantize()
    modules = dict(tuned.named_modules())
    weights = {name: modules[name].weight.detach().float() for name in names}
    changed = common.save_dequantized(args, weights)
    first = next(iter(layers.values()))
    settings = {name: str(first.get(name)) for name in ("bits", "group_size", "sym", "scale_dtype")}
    settings |= {"iters": str(args.iters), "enable_alg_ext": str(args.alg_ext), "batch_size": "8"}
    run.record(["auto-round"], linears=changed, settings=settings)


if __name__ == "__main__":
    main()
