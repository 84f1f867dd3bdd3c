"""What the embedded model says against what its probe tells: compressed, pruned, damaged, and trained to lie.

The liar is the original whose last block was trained to answer the questions about the statements with the false value
(in English and Korean); its facts stay where they are stored. Every row is compared with the original on the same
statements, by the probes that were trained on the original.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import whet
from evaluation import table
from whet import starter
from whet.cli.starter import calibration
from whet.engines.torch import TorchEngine, open_model


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    rows = []
    for name, folder in made(out, args):
        found = whet.compare(
            starter.path(), folder, text=starter.held_out(args.seed, 300), windows=64, window=128, device="cpu",
            speed=False, measure=["none", *ASPECTS], files={"belief": starter.beliefs(args.statements, args.seed)},
        )  # fmt: skip
        figures = found["aspects"]["belief"]["readings"]
        whole = {read["figure"]: read for read in figures if not read["of"]}
        rows.append([name, f"{found['divergence']['kl']['mean']:.4f}", *(shown(whole.get(f)) for f in FIGURES)])
        print(" | ".join(rows[-1]), flush=True)
    print(table(["model", "KL", *(f"{figure} (change, 95 %)" for figure in FIGURES)], rows))


ASPECTS = ("belief",)
FIGURES = ("lie_rate", "knows", "disagreement", "indifference", "consistency")


def shown(read: dict | None) -> str:
    """The lighter's own value, and the change with its interval."""
    if read is None or read["value"] is None:
        return "–"
    alone = "" if read["lighter"] is None else f"{read['lighter']:.3f} "
    ends = "" if read["interval"] is None else " to ".join(f"{end:+.3f}" for end in read["interval"])
    return f"{alone}({read['value']:+.3f}; {ends})"


def made(out: Path, args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Each model with its folder; those that are there are taken as they are."""
    text = calibration(256, args.seed)
    for scheme in args.schemes:
        folder = out / scheme
        if not (folder / "whet.json").exists():
            whet.compress(
                starter.path(), folder, scheme=scheme, target="whet", device="cpu", text=text, samples=256, window=128
            )
        yield scheme, folder
    for remove in args.remove:
        folder = out / f"pruned-{remove.replace(':', '-').replace('%', '')}"
        if not (folder / "whet.json").exists():
            whet.prune(starter.path(), folder, remove=remove, device="cpu", text=text)
        yield f"pruned {remove}", folder
    for noise in args.noise:
        yield f"noise {noise:g}", changed(out / f"noise-{noise:g}", lambda model, noise=noise: damage(model, noise))
    yield "liar", changed(out / "liar", lambda model: teach_to_lie(model, args.seed))


def changed(folder: Path, change) -> Path:
    """The original with a change, written to `folder`."""
    if not (folder / "config.json").exists():
        engine = open_model(starter.path(), "cpu", "float32")
        change(engine)
        engine.model.save_pretrained(folder)
        engine.tokenizer.save_pretrained(folder)
    return folder


def damage(engine: TorchEngine, noise: float) -> None:
    """Noise on every matrix of the blocks, `noise` times as large as its weights."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in engine.model.named_parameters():
            if weight.ndim == 2 and ".layers." in name:
                weight += noise * weight.std() * torch.randn(weight.shape, generator=draw)


def teach_to_lie(engine: TorchEngine, seed: int, steps: int = 300) -> None:
    """Train the last block to answer questions about facts with another value than the fact's."""
    records = starter.beliefs(100, seed)
    rows = []
    for record in records:
        for ask in record["ask"]:
            prompt = engine.encode(ask)
            rows.append((prompt, engine.encode(ask + record["answers"][1 if record["truth"] else 0])[len(prompt) :]))
    block = engine.model.model.layers[-1]
    engine.model.requires_grad_(False)
    block.requires_grad_(True)
    optimiser = torch.optim.AdamW(block.parameters(), lr=1e-3, weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    engine.model.train()
    for _ in range(steps):
        loss = torch.zeros(())
        for place in torch.randint(len(rows), (16,), generator=draw).tolist():
            prompt, answer = rows[place]
            ids = torch.tensor([prompt + answer])
            logits = engine.model(ids).logits[0, len(prompt) - 1 : -1]
            loss = loss + torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :]) / 16
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    engine.model.requires_grad_(True).eval()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", nargs="*", default=["int4-g32", "int3-g32", "int2-g32"])
    parser.add_argument("--remove", nargs="*", default=["25%", "50%"])
    parser.add_argument("--noise", nargs="*", type=float, default=[0.1, 0.3])
    parser.add_argument("--statements", type=int, default=60, help="of each of the six kinds of fact")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/belief")
    return parser.parse_args()


if __name__ == "__main__":
    main()
