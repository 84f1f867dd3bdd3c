"""whet itself, through its Python API, under the same contract as the peers."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import common
import torch
from clock import Clock

import whet
from whet.checkpoint import load_model


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--solver", default="gptq", help="one of whet's")
    parser.add_argument("--transform", help="one of whet's")
    parser.add_argument("--verify", help="safetensors file with windows that solve nothing")
    parser.add_argument("--time-only", action="store_true", help="write result.json alone")
    args = parser.parse_args()
    run = common.Run(args)
    lighter = Path(args.out) / "lighter"
    shutil.rmtree(lighter, ignore_errors=True)  # an interrupted run
    lighter.parent.mkdir(parents=True, exist_ok=True)

    finished = Clock()

    def listen(event: dict) -> None:
        if str(event.get("unit", "")).startswith("block "):
            finished.mark()

    with run.timed():
        result = whet.compress(
            args.model,
            lighter,
            **what(args),
            solver=args.solver,
            transform=args.transform,
            text=args.windows,
            eval_text=args.verify,
            device="cpu",
            on_event=listen,
        )
    facts = {**finished.between(), "result": result}
    if not args.time_only:
        model = load_model(lighter, dtype=torch.float32)
        modules = dict(model.named_modules())
        weights = {name: modules[name].weight for name in result["linears"]}
        beside = dict(model.named_parameters()) if args.transform else None
        facts["linears"] = common.save_dequantized(args, weights, beside)
        numbers = sum(weight.numel() for weight in weights.values())
        if not args.keep:  # whose bytes are among them
            facts["bits_per_weight"] = 8 * result["sizes"]["lighter"]["linears"] / numbers
    run.record(["whet"], **facts)


def what(args: argparse.Namespace) -> dict[str, object]:
    """The scheme, or the plan that gives it to all linears but those that stay as they are."""
    scheme = args.scheme or f"int{args.bits}{'s' if args.symmetric else ''}-g{args.group}"
    if not args.keep:
        return {"scheme": scheme}
    model = load_model(args.model)
    tables = ["model.embed_tokens", *([] if model.config.tie_word_embeddings else ["lm_head"])]
    schemes = dict.fromkeys([*common.linears(model), *tables], "keep")
    schemes |= dict.fromkeys(common.linears(model, args.keep), scheme)
    return {"plan": {"format": "whet.plan", "version": 1, "target": "whet", "schemes": schemes}}


if __name__ == "__main__":
    main()
