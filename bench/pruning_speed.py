"""How much faster a pruned model decodes, beside what the bytes that went predict: depth, width and hidden width.

The model is random, of 100 million parameters: its speed is that of a trained one. Decoding reads every weight of the
blocks and the head once a token, so where memory is the limit a model with a share s of those bytes is 1/s as fast.
Both models are in one process and take turns; the ratio is the median over rounds. Prefill computes, and is shown
beside it. The last column is the measured speed-up over the predicted one.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import whet
from evaluation import table
from whet import starter
from whet.checkpoint import Checkpoint
from whet.engines.opening import open_engine
from whet.measure.speed import side_by_side

# Units, and by what they are chosen.
CUTS = {
    "depth": ("layers", "influence"),
    "width": ("channels", "magnitude"),
    "hidden": ("hidden", "pca"),
}
SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    root = Path(args.out)
    shutil.rmtree(root, ignore_errors=True)
    twin = made(root / "twin", args.seed)
    exported(twin)
    rows = []
    for name in args.cuts:
        units, importance = CUTS[name]
        out = root / name
        options = {"text": starter.documents(args.seed, 40), "samples": 8, "window": 64, "seed": args.seed}
        found = whet.prune(
            twin, out, remove=args.share, units=units, importance=importance, repair=False, device="cpu", **options
        )
        exported(out)
        predicted = read_a_token(twin) / read_a_token(out)
        for runtime, suffix in (("transformers", ""), ("llama.cpp", ".gguf")):
            rows.append([name, f"{found['removed']:.1%}", runtime, *timed(twin, out, suffix, predicted, args)])
            print("measured:", *rows[-1], flush=True)
    head = ["cut", "went", "runtime", "predicted", "decode", "rounds", "prefill", "decode / predicted"]
    load = os.getloadavg()[0]
    print(f"\n{args.rounds} rounds, {args.threads} threads, load of the machine {load:.1f}\n\n{table(head, rows)}")


def timed(twin: Path, out: Path, suffix: str, predicted: float, args: argparse.Namespace) -> list[str]:
    """Predicted and measured speed-ups of one runtime."""
    engines = [open_engine(f"{folder}{suffix}", "cpu", torch.float32, args.threads) for folder in (twin, out)]
    prompt = AutoTokenizer.from_pretrained(twin)(starter.held_out(args.seed, 1)[0]).input_ids[:32]
    found = side_by_side(*engines, prompt, rounds=args.rounds, new_tokens=args.tokens)
    decode, prefill = (found[what]["ratio"] for what in ("decode", "prefill"))
    low, high = decode["spread"]
    shown = [predicted, decode["value"], prefill["value"], decode["value"] / predicted]
    first, second, *rest = [f"{value:.2f}" for value in shown]
    return [first, second, f"{low:.2f} – {high:.2f}", *rest]


def made(folder: Path, seed: int) -> Path:
    """The random model, with the embedded one's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(starter.path())
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, **SHAPE))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def exported(folder: Path) -> None:
    whet.export(folder, to="gguf", out=f"{folder}.gguf", kind="f16")


def read_a_token(folder: Path) -> int:
    """Weights that one token reads: all but an embedding that is not the head too."""
    checkpoint = Checkpoint(folder)
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tied = checkpoint.config["tie_word_embeddings"]
    return sum(size for name, size in sizes.items() if tied or "embed_tokens" not in name)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", nargs="+", choices=list(CUTS), default=list(CUTS))
    parser.add_argument("--share", default="25%")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=32, help="decoded a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="bench-out/pruning-speed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
