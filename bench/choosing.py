"""How often `whet choose` picks what all questions together pick: the starter and models cut from it, at equal bytes.

Each model is brought to the budget once and asked every question once. What has the highest mean accuracy over all of
them is the truth. Then, seed by seed, a sample of the questions judges, as `whet choose` would with that file: it picks
the same, or says that it cannot tell, or is wrong.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from random import Random

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

import whet
from evaluation import table
from whet import starter
from whet.cli.starter import calibration
from whet.engines.opening import open_engine
from whet.measure.choosing import Answers, answers, choose_among, quality
from whet.measure.items import read_skills


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    place, started = Path(args.out), time.perf_counter()
    place.mkdir(parents=True, exist_ok=True)
    text = calibration(128, args.seed)
    models = {"whole": starter.path()}
    for share in args.cut:
        models[f"{share} removed"] = folder = place / f"cut-{share.rstrip('%')}"
        if not folder.exists():
            whet.prune(starter.path(), folder, remove=share, units="channels", text=text, seed=args.seed, device="cpu")
    items = read_skills(starter.skills("report", per_skill=args.questions // 10, seed=args.seed))
    told: dict[str, Answers] = {}
    for number, (name, folder) in enumerate(models.items()):
        lighter = place / f"lighter-{number}"
        if not lighter.exists():
            whet.compress(folder, lighter, fit=args.budget, text=text, seed=args.seed, device="cpu")
        told[name] = answers(open_engine(lighter, "cpu"), items, [])
        weights = sum(file.stat().st_size for file in lighter.glob("*.safetensors"))
        print(f"{name}: {weights:,} bytes, mean accuracy {quality(told[name], items):.4f}", flush=True)
    names, every = list(told), list(told.values())
    truth = names[choose_among(every, items).best]
    rows = []
    for count in args.sample:
        same, open_, wrong = 0, 0, 0
        for seed in range(args.seeds):
            places = sorted(Random(seed).sample(range(len(items)), min(count, len(items))))
            some = [Answers(one.right[places], np.zeros(0), np.zeros(0)) for one in every]
            choice = choose_among(some, [items[place] for place in places])
            if not choice.sure:
                open_ += 1
            elif names[choice.best] == truth:
                same += 1
            else:
                wrong += 1
        rows.append([str(count), str(same), str(open_), str(wrong)])
    print(f"\nbest of {len(items):,} questions: {truth}; {args.seeds} seeds; {time.perf_counter() - started:.0f} s\n")
    print(table(["questions", "the same", "cannot tell", "wrong"], rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="work/choosing", help="where models are kept, to go on with")
    parser.add_argument("--budget", default="1.6MB", help="bytes of the weight files")
    parser.add_argument("--cut", nargs="+", default=["25%", "50%"], help="shares of the FFN's channels taken out")
    parser.add_argument("--questions", type=int, default=20000)
    parser.add_argument("--sample", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
