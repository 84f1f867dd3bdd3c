"""What transforms keep where channels are loud: a model that is given some, exactly, and computes what it did.

In every block a few channels, drawn at random, are made ``--factor`` times louder after each norm (its weights times
the factor) and the columns that read them as much smaller, in float64. The logits stay; rounding loses more, as small
columns share scales with large ones. Each transform is solved on the same calibration draws, windows of the first 90 %
of the text, and measured on windows of the rest.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import whet
from evaluation import clustered_error, cut_sets, table, window_scores
from whet.anatomy import anatomy, fold_groups
from whet.checkpoint import Checkpoint, copied_files, load_model

TRANSFORMS = "none,smooth,awq,rotate,quarot,spinquant"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True, help="UTF-8 text")
    parser.add_argument("--bits", type=lambda text: text.split(","), default=["4", "3", "2"])
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--transforms", type=lambda text: text.split(","), default=TRANSFORMS.split(","))
    parser.add_argument("--channels", type=int, default=4, help="that are made louder after each norm")
    parser.add_argument("--factor", type=float, default=30.0)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--windows", type=int, default=40, help="the most windows to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/outliers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    loud = out / "loud"
    make_loud(Path(args.model), loud, args.channels, args.factor, args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    text = Path(args.train).read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
    draws, rest = cut_sets(ids, args.window, [args.samples] * args.draws, args.seed)
    rest = rest[: args.windows]
    original = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    same = window_scores(original, AutoModelForCausalLM.from_pretrained(loud, dtype=torch.float32).eval(), rest)["kl"]
    print(f"KL of the louder model before anything is rounded: {same.mean():.1e}")
    rows = []
    for bits in args.bits:
        for name in args.transforms:
            found = []
            for model in (Path(args.model), loud):
                scores = []
                for draw in draws:
                    shutil.rmtree(out / "lighter", ignore_errors=True)
                    whet.compress(
                        model, out / "lighter", scheme=f"int{bits}-g{args.group}", text=draw, device="cpu",
                        transform=None if name == "none" else name,
                    )  # fmt: skip
                    lighter = load_model(out / "lighter", dtype=torch.float32)
                    scores.append(window_scores(original, lighter, rest)["kl"])
                found.append(np.mean(scores, axis=0))
            plain, louder = found
            rows.append({"bits": bits, "transform": name, "kl": float(plain.mean()), "loud": float(louder.mean()),
                         "error": clustered_error(louder)})  # fmt: skip
            print(f"measured: {bits} bits, {name}, KL {plain.mean():.5f}, louder {louder.mean():.5f}", flush=True)
    shutil.rmtree(out / "lighter", ignore_errors=True)
    (out / "outliers.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    head = ["bits", "transform", "KL as it was", "KL with loud channels", "standard error over windows"]
    cells = [[r["bits"], r["transform"], f"{r['kl']:.5f}", f"{r['loud']:.5f}", f"{r['error']:.5f}"] for r in rows]
    print(f"\n{len(rest)} windows of {args.window} tokens, {args.draws} calibration draws\n\n{table(head, cells)}")


def make_loud(model: Path, folder: Path, channels: int, factor: float, seed: int) -> None:
    """Write into `folder` the model with `channels` of each norm's `factor` times louder, in float32."""
    checkpoint = Checkpoint(model)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    tensors = {name: checkpoint.read(name).double() for name in checkpoint.tensors}
    generator = torch.Generator().manual_seed(seed)
    for index in range(len(parts.blocks)):
        for group in fold_groups(parts, index)[0]:
            if group.giver is not None:
                continue
            factors = torch.ones(group.given, dtype=torch.float64)
            factors[torch.randperm(group.given, generator=generator)[:channels]] = factor
            for place, (name, _) in enumerate(group.vectors):
                adds = group.adds if place == 0 else 0.0
                tensors[name].add_(adds).mul_(factors).sub_(adds)
            for name in group.kept:
                tensors[name].div_(factors)
            for linear in group.readers:
                linear.view(tensors[linear.parameter]).div_(factors)
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in copied_files(model).items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / name)
    (folder / "config.json").write_text(json.dumps(checkpoint.config | {"dtype": "float32"}), encoding="utf-8")
    save_file({name: t.float() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main()
