"""Several precisions in one file, beside a file of each alone: KL, and the bits that the codes take on disk.

Three ways to make them, all on the embedded model:

- `coded`: every precision is solved as it is alone, and the finer codes are stored as what the coarser ones do not tell
  (`whet compress --precisions`);
- `cut`: the finest is solved, coarser codes are its high bits, with scales and zeros fitted to them afterwards by least
  squares (as MatQuant slices and Any-Precision nests codes, without training);
- `added`: the coarsest is solved, and each finer precision adds codes of what the one before leaves, rounded to nearest
  with a scale of their own: exactly as many bits as the finest.

Written text of the embedded model calibrates; what it never saw measures. Folders that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

import whet
from evaluation import clustered_error, cut, table, window_scores
from whet import starter
from whet.checkpoint import Checkpoint, load_model, load_tokenizer
from whet.checkpoint.codes_whet import level_parts, unpack
from whet.cli.starter import resolve
from whet.formats.nested import table_in

TRIED = np.linspace(0.6, 1.1, 26)  # shares of the whole range that a step is tried at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precisions", default="8,4,2")
    parser.add_argument("--scheme", default="int4-g32")
    parser.add_argument("--solver", default="good")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--windows", type=int, default=64, help="windows of 256 tokens to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/nested")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, out = resolve("starter"), Path(args.out)
    text = starter.documents(args.seed, max(200, 6 * args.samples))
    held = " ".join(starter.held_out(args.seed, 4 * args.windows))
    ids = load_tokenizer(model)(held, return_tensors="pt", verbose=False).input_ids[0]
    measured = cut(ids, 256)[: args.windows]
    original = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    bits = [int(one) for one in args.precisions.split(",")]
    given = {"target": "whet", "solver": args.solver, "samples": args.samples, "text": text, "device": "cpu"}
    if not (out / "all" / "whet.json").is_file():
        whet.compress(model, out / "all", scheme=args.scheme, precisions=args.precisions, **given)
    made = Checkpoint(out / "all").whet or {}
    alone = {}
    for one in bits:
        folder = out / f"{one}"
        if not (folder / "whet.json").is_file():
            whet.compress(model, folder, scheme=made["levels"][str(one)]["scheme"], **given)
        alone[one] = window_scores(original, load_model(folder, dtype=torch.float32), measured)["kl"]
    rows = []
    for way, levels in ways(Checkpoint(out / "all"), original, bits).items():
        for one in bits:
            kl = window_scores(original, levels(one), measured)["kl"]
            row = {"way": way, "bits": one, "kl": float(kl.mean()), "error": clustered_error(kl)}
            row["alone"] = float(alone[one].mean())
            rows.append(row)
            print(f"measured: {way} at {one}, KL {row['kl']:.6f}, alone {row['alone']:.6f}", flush=True)
    sizes = disk(Checkpoint(out / "all"), bits)
    (out / "nested.json").write_text(json.dumps({**vars(args), "rows": rows, "bits": sizes}, indent=2))
    lines = [
        [r["way"], str(r["bits"]), f"{r['kl']:.6f}", f"{r['alone']:.6f}", f"{r['kl'] / r['alone']:.3f}"] for r in rows
    ]
    print(f"\n{len(measured)} windows of 256 tokens\n")
    print(table(["", "bits", "KL", "alone", "ratio"], lines))
    print(f"\nbits a weight on disk: {sizes}")


def ways(nested: Checkpoint, original: PreTrainedModel, bits: list[int]):
    """By the name of a way, the model at a precision."""
    stored = {address: linear(nested, address) for address in table_in(nested.whet)}
    entries = table_in(nested.whet)

    def codes_at(address: str, one: int) -> tuple[Tensor, Tensor]:
        parts, entry = level_parts(stored[address], {**entries[address], "precision": one})
        return unpack(parts["weight_packed"], one, int(parts["weight_shape"][1])), entry["group"]

    def with_weights(weights) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_pretrained(original.name_or_path, dtype=torch.float32).eval()
        for address in stored:
            module = model.get_submodule(address)
            module.weight.data = weights(address, module.weight.data)
        return model

    def sliced(one: int) -> PreTrainedModel:
        def weights(address: str, w: Tensor) -> Tensor:
            codes, group = codes_at(address, bits[0])
            return refitted(w, (codes >> (bits[0] - one)).float(), group or w.shape[1])

        return load_model(nested.path, dtype=torch.float32) if one == bits[0] else with_weights(weights)

    def added(one: int) -> PreTrainedModel:
        base = load_model(nested.path, dtype=torch.float32, precision=bits[-1])

        def weights(address: str, w: Tensor) -> Tensor:
            found, before = base.get_submodule(address).weight.data.clone(), bits[-1]
            for finer in sorted(bits)[1:]:
                if finer > one:
                    break
                found += rest(w - found, finer - before, codes_at(address, finer)[1] or w.shape[1])
                before = finer
            return found

        return base if one == bits[-1] else with_weights(weights)

    return {
        "coded": lambda one: load_model(nested.path, dtype=torch.float32, precision=one),
        "cut": sliced,
        "added": added,
    }


def linear(nested: Checkpoint, address: str) -> dict[str, Tensor]:
    names = [name for name in nested.tensors if name.rpartition(".")[0] == address]
    return {name.rpartition(".")[2]: nested.read(name) for name in names}


def refitted(w: Tensor, codes: Tensor, group: int) -> Tensor:
    """`codes` under the scale and offset of each group that come closest to `w`."""
    x, y = codes.unflatten(1, (-1, group)), w.unflatten(1, (-1, group))
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred * y).sum(-1, keepdim=True) / centred.square().sum(-1, keepdim=True).clamp_min(1e-9)
    return (centred * scale + y.mean(-1, keepdim=True)).flatten(1)


def rest(w: Tensor, bits: int, group: int) -> Tensor:
    """What is left, on 2^bits levels on both sides of zero, under the step of each group that leaves the least."""
    y, half = w.unflatten(1, (-1, group)), 2 ** (bits - 1)
    whole, best, least = y.abs().amax(-1, keepdim=True) / half, torch.zeros_like(y), torch.full((), torch.inf)
    for share in TRIED:
        step = (whole * share).clamp_min(1e-12)
        found = ((y / step - 0.5).round().clamp(-half, half - 1) + 0.5) * step
        loss = (found - y).square().sum(-1, keepdim=True)
        best, least = torch.where(loss < least, found, best), torch.minimum(loss, least)
    return best.flatten(1)


def disk(nested: Checkpoint, bits: list[int]) -> dict[str, float]:
    """Bits a weight of the rounded linears: codes of each precision as they are stored, and what lies beside them."""
    found, count = dict.fromkeys((*map(str, bits), "beside"), 0.0), 0
    for address in table_in(nested.whet):
        for part, value in linear(nested, address).items():
            named = str(bits[-1]) if part == "weight_packed" else part.removeprefix("weight_more_")
            found[named if named in found else "beside"] += 8 * value.nbytes
            count += int(value.prod()) if part == "weight_shape" else 0
    return {name: round(value / count, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
