"""What distillation gives back to a pruned model, beside the same shape trained from nothing on as many tokens; and the
losses beside each other at equal steps and tokens.

The embedded model is pruned with repair, then taught by the original. Every folder is measured on documents and
questions that nothing else reads: KL a token with its error over windows, and every skill's score above chance as a
share of the original's, with 95 % intervals. Seconds are those of training. The control is trained by cross-entropy
from random weights with the optimiser that made the embedded model (Muon, 4e-3).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import whet
from elastic import kept
from evaluation import table
from whet import starter
from whet.checkpoint import load_tokenizer
from whet.distillation import DIVERGENCES
from whet.starter.make import PEAK
from whet.text.windows import windows
from whet.train import PackedRows, Schedule, Settings, token_loss, train

# Ways to learn, beside each other at equal steps and tokens.
LOSSES: dict[str, dict[str, str]] = {
    "forward": {},
    "own-text": {"own_text": "15%"},
    "switch": {"own_text": "15%", "writer": "switch"},
    "targets": {"targets": ""},
    **{name: {"loss": name} for name in DIVERGENCES if name != "forward"},
}


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    rows = []
    if args.recovery:
        for share in args.shares.split(","):
            rows += recovered(args, out / share.replace("%", ""), share)
        print_table(args, rows)
    names = [] if args.losses == "none" else list(LOSSES) if args.losses == "all" else args.losses.split(",")
    if names:
        share = args.shares.split(",")[0]
        folder = out / share.replace("%", "")
        rows = [measured(args, "pruned", pruned(args, folder, share), "–")]
        print_table(args, rows + [taught(args, folder, name, args.loss_steps, name) for name in names])


def pruned(args: argparse.Namespace, folder: Path, share: str) -> Path:
    """The folder that is taught."""
    made = folder / "pruned"
    if not (made / "whet.json").exists():
        whet.prune(starter.path(), made, remove=share, text=starter.documents(args.seed, 800), device="cpu")
    return made


def recovered(args: argparse.Namespace, folder: Path, share: str) -> list[list[str]]:
    """Rows of one share: pruned, then taught, and the control."""
    rows = [measured(args, f"{share} pruned, repaired", pruned(args, folder, share), "–")]
    rows.append(taught(args, folder, f"{share} then distilled", args.steps, "forward"))
    if args.control:
        rows.append(from_nothing(args, folder, f"{share} from nothing"))
    return rows


def taught(args: argparse.Namespace, folder: Path, name: str, steps: int, loss: str) -> list[str]:
    """The pruned folder taught with a loss."""
    made = folder / f"{loss}-{steps}-{args.batch}-{args.rate or 'usual'}"
    if not (made / "whet.json").exists():
        options = dict(LOSSES[loss])
        if "targets" in options:
            options["targets"] = str(folder / f"targets-{args.batch}")
        result = whet.distill(
            folder / "pruned", made, teacher=starter.path(), text=starter.documents(args.seed + 1, args.documents),
            steps=steps, batch=args.batch, rate=args.rate, seed=args.seed, device="cpu", **options,
        )  # fmt: skip
        Path(f"{made}.seconds").write_text(f"{result['seconds']['training']:.0f}")
    return measured(args, f"{name}, {steps} steps", made, Path(f"{made}.seconds").read_text())


def from_nothing(args: argparse.Namespace, folder: Path, name: str) -> list[str]:
    """The pruned shape trained from random weights on as many tokens of the same text."""
    made, seconds = folder / f"nothing-{args.steps}", "–"
    if not made.exists():
        started = time.perf_counter()
        text = starter.documents(args.seed + 1, args.documents)
        trained_from_nothing(folder / "pruned", made, text, args.steps, args.batch, args.seed)
        seconds = f"{time.perf_counter() - started:.0f}"
    return measured(args, f"{name}, {args.steps} steps", made, seconds)


def trained_from_nothing(shape: Path, made: Path, text: list[str], steps: int, batch: int, seed: int) -> None:
    """Write to `made` a model of the folder `shape`'s config, trained from random weights by cross-entropy."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(shape), dtype=torch.float32)
    model.set_attn_implementation("eager")
    tokenizer = load_tokenizer(shape)
    rows = PackedRows(windows(text, tokenizer, None, 256), batch, seed, tokenizer.eos_token_id)

    def batches(step: int) -> dict[str, torch.Tensor]:
        found = rows(step)
        return {"input_ids": found["input_ids"], "weights": found["weights"][:, 1:]}

    schedule = Schedule(PEAK, steps, warmup=min(100, steps // 10))
    train(model, batches, schedule, loss=token_loss, settings=Settings(muon=True, autocast=True))
    model.bfloat16().save_pretrained(made)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(shape / file, made)


def measured(args: argparse.Namespace, name: str, folder: Path, seconds: str) -> list[str]:
    """A row: name, seconds, KL, every skill; kept beside the folder."""
    file = Path(f"{folder}.{args.held_out}-{args.questions}.json")
    if file.exists():
        before = json.loads(file.read_text())
        args.skills = before["skills"]
        return list(before["row"])
    found = whet.compare(
        starter.path(), folder, text=starter.held_out(args.seed, args.held_out), windows=args.held_out,
        skills=starter.skills("report", args.questions, args.seed), device="cpu", speed=False,
    )  # fmt: skip
    kl = found["divergence"]["kl"]
    cells = [name, seconds, f"{kl['mean']:.4f} ± {kl['standard_error']:.4f}"]
    row = [*cells, *(kept(one["retention"]) for one in found["skills"])]
    args.skills = [one["skill"] for one in found["skills"]]
    print(" | ".join(row), flush=True)
    file.write_text(json.dumps({"row": row, "skills": args.skills}))
    return row


def print_table(args: argparse.Namespace, rows: list[list[str]]) -> None:
    print(f"\n{table(['', 'seconds', 'KL', *args.skills], rows)}\n", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", default="33%,45%", help="of the blocks' parameters that go")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--losses", default="all", help="all, none, or names, with commas between")
    parser.add_argument("--loss-steps", type=int, default=50)
    parser.add_argument("--rate", type=float, help="without it whet's own")
    parser.add_argument("--recovery", action=argparse.BooleanOptionalAction, default=True, help="the first table")
    parser.add_argument("--control", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--documents", type=int, default=12000)
    parser.add_argument("--held-out", type=int, default=100, help="documents for the KL")
    parser.add_argument("--questions", type=int, default=100, help="a skill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/distill")
    return parser.parse_args()


if __name__ == "__main__":
    main()
