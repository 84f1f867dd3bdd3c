"""What deciding at run time keeps: channels by the prompt, and blocks by the token, of the embedded model.

Channels: a folder is made by `whet dynamic --active`, and beside every share stand a static cut of as many channels
(`whet prune`, which repairs what stays), one choice for all prompts, and the choice of another prompt. KL is of
held-out text behind the prompt, which neither trained nor judged, and skills are right answers, as counts.

Exits: a folder is made by `whet dynamic --agreement`, and by threshold stands on held-out text how many tokens agree
with the whole model, how many blocks are read for one, and how many bytes, looking at exits counted.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import whet
from evaluation import table
from whet import starter
from whet.checkpoint import Checkpoint, load_model
from whet.cli.starter import calibration
from whet.distillation import Halves, log_chances
from whet.distillation.divergences import forward_kl
from whet.engines.dynamic import open_choosing, read_exits
from whet.engines.torch import open_model
from whet.measure.exiting import THRESHOLDS, look
from whet.measure.items import read_skills
from whet.measure.skills import score
from whet.steps.dynamic_channels import prompted
from whet.steps.dynamic_exits import Leaving
from whet.steps.dynamic_plan import decide
from whet.steps.dynamic_work import reads_of
from whet.steps.options import Dynamic
from whet.steps.tune_text import in_batches


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for part in args.parts.split(","):
        {"channels": channels, "exits": exits}[part](args)


def asked(args: argparse.Namespace, **what: object) -> dict:
    return dict(
        text=calibration(args.samples, args.seed), samples=args.samples, window=args.window, steps=args.steps,
        batch=args.batch, **what,
    )  # fmt: skip


def channels(args: argparse.Namespace) -> None:
    """Active share against KL and skills."""
    options, folder = asked(args, active=args.active), Path(args.out) / "channels"
    started = time.perf_counter()
    if not (folder / "whet.json").exists():
        whet.dynamic(starter.path(), folder, **options, seed=args.seed, device="cpu")
        print(f"trained in {time.perf_counter() - started:.0f} s", flush=True)
    said = Checkpoint(folder).whet["dynamic"]
    plan = decide(starter.path(), Dynamic.of("dynamic", **options), seed=args.seed, device="cpu")
    items = [one for one in read_skills(starter.skills("report", args.questions, args.seed)) if not one.choices]
    whole = open_model(starter.path(), "cpu", torch.float32)
    rows = [["100%", "the original", f"{said['stored'] - said['bytes']:,}", "0", right(whole, items)]]
    ffn = sum(x.shape[0] * x.shape[1] for x in plan.parts.blocks[0] if x.role in ("gate", "up", "down"))
    block = sum(x.shape[0] * x.shape[1] for x in plan.parts.blocks[0])
    for size in said["sizes"]:
        share = size["active"]
        engine = open_choosing(folder, share, dtype=torch.float32, device="cpu")
        engine.name = engine.engine.name
        rows.append([f"{share:.0%}", "by the prompt", f"{size['bytes']:,}", f"{size['kl']:.4f}", right(engine, items)])
        print(rows[-1], flush=True)
        rows.append([f"{share:.0%}", "by another prompt", f"{size['bytes']:,}", f"{size['kl_other']:.4f}", "–"])
        rows.append([f"{share:.0%}", "one choice for all", f"{size['bytes']:,}", f"{size['kl_static']:.4f}", "–"])
        cut = Path(args.out) / f"cut-{share:.0%}"
        if not (cut / "whet.json").exists():
            whet.prune(
                starter.path(), cut, remove=(1 - share) * ffn / block, units="channels", text=options["text"],
                samples=args.calibrated, window=args.window, seed=args.seed, device="cpu",
            )  # fmt: skip
        pruned = open_model(cut, "cpu", torch.float32)
        kl = divergence(whole.model, pruned.model, plan.held["report"])
        rows.append(
            [f"{share:.0%}", "static cut, repaired", f"{Checkpoint(cut).nbytes:,}", f"{kl:.4f}", right(pruned, items)]
        )
        print(rows[-1], flush=True)
    print(f"\n{table(['channels', 'chosen', 'bytes in use', 'KL', 'right answers'], rows)}", flush=True)


@torch.no_grad()
def divergence(whole: torch.nn.Module, other: torch.nn.Module, windows: list[torch.Tensor]) -> float:
    """KL of `other` from the whole model behind the prompts of windows."""
    one, two = Halves.of(whole), Halves.of(other)
    total = tokens = 0.0
    for batch in map(prompted, in_batches(windows)):
        p, q = (half.logits(half.states(batch["input_ids"]).last_hidden_state) for half in (one, two))
        kl = forward_kl(log_chances(p, one.vocabulary), log_chances(q, two.vocabulary)).double()
        total += float((kl * batch["weights"]).sum())
        tokens += float(batch["weights"].sum())
    return total / tokens


def right(engine: object, items: list) -> str:
    """Right answers of all, by skill."""
    found, every = Counter(), Counter(item.skill for item in items)
    for item, outcome in zip(items, score(engine, items), strict=True):
        found[item.skill] += outcome.right
    return f"{sum(found.values())}/{len(items)}: " + ", ".join(f"{name} {found[name]}/{every[name]}" for name in every)


def exits(args: argparse.Namespace) -> None:
    """Layers used against agreement."""
    options, folder = asked(args, agreement=args.agreement, exits=args.exits), Path(args.out) / "exits"
    options["window"] = args.exit_window
    started = time.perf_counter()
    if not (folder / "whet.json").exists():
        whet.dynamic(starter.path(), folder, **options, seed=args.seed, device="cpu")
        print(f"trained and calibrated in {time.perf_counter() - started:.0f} s", flush=True)
    said = Checkpoint(folder).whet["dynamic"]
    print(said, flush=True)
    plan = decide(starter.path(), Dynamic.of("dynamic", **options), seed=args.seed, device="cpu")
    model = load_model(folder, torch.float32)
    untrained = read_exits(folder, said["after"], "cpu")
    for part in untrained.up:
        part.zero_()
    rows = []
    for name, maps in (("own norm and head", untrained), ("trained maps", read_exits(folder, said["after"], "cpu"))):
        windows = Leaving(model, maps).windows(plan.held["report"], lambda: None)
        for threshold in THRESHOLDS[:: args.every]:
            left = look(windows, threshold)
            found = reads_of(plan, left)
            rows.append(
                [
                    name, str(threshold), f"{left.agreement:.2%}", f"{left.limit:.2%}", f"{left.left:.1%}",
                    f"{found['layers']:.2f} of {found['of']}", f"{found['reads']:.1%}",
                ]
            )  # fmt: skip
    head = ["exits", "threshold", "agree", "at least", "leave", "blocks read", "bytes read"]
    print(f"\n{table(head, rows)}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="channels,exits")
    parser.add_argument("--active", default="50%")
    parser.add_argument("--agreement", default="90%")
    parser.add_argument("--exits", default="4,5")
    parser.add_argument("--samples", type=int, default=512, help="windows to train on")
    parser.add_argument("--calibrated", type=int, default=64, help="windows that the static cut is calibrated on")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--exit-window", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--questions", type=int, default=5, help="a skill")
    parser.add_argument("--every", type=int, default=3, help="thresholds are printed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/dynamic")
    return parser.parse_args()


if __name__ == "__main__":
    main()
