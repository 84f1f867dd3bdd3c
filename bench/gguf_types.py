"""GPTQ onto ggml's block types against llama.cpp's own quantizer with an importance matrix from the same text.

One type on every matrix, embedding (and tied head) too. llama.cpp's file is made by the function behind `llama-quantize
--pure`, from the original in float32, with the mean squared inputs of every linear as `llama-imatrix` collects them on
the very windows whet solves on; once without an importance for the embedding, as it does, and once with that of the
head's inputs. All files are decoded by the `gguf` package and measured in float32 against the original on held-out
text: KL, and the energy of outputs that is lost there, tr(D H Dᵀ) / tr(W H Wᵀ), the mean over the blocks' linears. KL
once more as llama.cpp computes them. Needs the extra `llamacpp`.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import gguf
import llama_cpp
import numpy as np
import torch
from safetensors.torch import save_file

import whet
from evaluation import cut, paired_ratio, table, window_scores
from whet import starter
from whet.checkpoint import load_model, load_tokenizer
from whet.engines.llamacpp import open_gguf
from whet.formats.gguf.architectures import find_architecture, tensor_name
from whet.measure.divergence import score_tokens

# llama_ftype; the K-quants' are those of their small mixes, which `--pure` makes one type throughout
FILE_TYPES = {
    **{"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "IQ4_NL": 25, "IQ4_XS": 30},
    **{"Q2_K": 10, "Q3_K": 11, "Q4_K": 14, "Q5_K": 16, "Q6_K": 18, "TQ1_0": 36, "TQ2_0": 37},
}
RIVALS = {"llama-quantize": False, "llama-quantize, embedding weighed too": True}


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model = Path(args.model) if args.model else starter.path()
    train, held_out = texts(args)
    tokenizer = load_tokenizer(model)
    pool, windows = (
        cut(torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids), args.window)
        for text in (train, held_out)
    )
    windows = windows[: args.windows]
    order = torch.from_numpy(np.random.default_rng(args.seed).permutation(len(pool)))
    original = load_model(model, dtype=torch.float32)
    whole = out / "original.gguf"
    whole.unlink(missing_ok=True)
    whet.export(model, out=whole, kind="f32")
    energies = moments(original, windows)
    rows = []
    for scheme in args.types:
        lost: dict[str, list[float]] = {}
        kl: dict[str, list[np.ndarray]] = {}
        runs: dict[str, list[float]] = {}
        size: dict[str, int] = {}
        for draw in range(args.draws):
            calibration = pool[order[draw * args.samples : (draw + 1) * args.samples]].contiguous()
            importance = imatrix(original, calibration)
            for name, weigh in ({"whet": False} | RIVALS).items():
                file = out / "lighter.gguf"
                if name == "whet":
                    by_whet(model, calibration, scheme, out, file)
                else:
                    by_llama_cpp(whole, file, scheme, importance, weigh)
                lighter = read_back(file, original)
                kl.setdefault(name, []).append(window_scores(original, lighter, windows)["kl"])
                lost.setdefault(name, []).append(energy_lost(original, lighter, energies))
                runs.setdefault(name, []).append(as_it_runs(file, original, windows[: args.run_windows]))
                size[name] = file.stat().st_size
                print(
                    f"{scheme}, draw {draw}, {name}: KL {kl[name][-1].mean():.6f}, run {runs[name][-1]:.6f}, "
                    f"energy lost {lost[name][-1]:.6f}",
                    flush=True,
                )
        best = min(RIVALS, key=lambda name: np.mean(kl[name]))
        for name in kl:
            ratio = paired_ratio(np.stack(kl[name]), np.stack(kl[best])) if name == "whet" else None
            rows.append(
                [
                    scheme,
                    name,
                    f"{np.mean(kl[name]):.6f}",
                    f"{ratio.value:.3f} ({ratio.crossed[0]:.3f}–{ratio.crossed[1]:.3f})" if ratio else "",
                    f"{np.mean(lost[name]):.6f}",
                    f"{np.mean(lost[name]) / np.mean(lost[best]):.3f}" if name == "whet" else "",
                    f"{np.mean(runs[name]):.6f}",
                    f"{np.mean(runs[name]) / np.mean(runs[best]):.3f}" if name == "whet" else "",
                    f"{size[name]:,}",
                ]
            )
    header = ["type", "by", "KL", "KL / best of llama.cpp (95 %)", "energy lost", "ratio", "KL as it runs", "ratio"]
    header += ["bytes of the file"]
    print(table(header, rows), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a Llama folder; the embedded model unless given")
    parser.add_argument("--train", help="UTF-8 text to solve on, with --model")
    parser.add_argument("--eval", help="UTF-8 text to measure on, with --model")
    parser.add_argument("--types", nargs="+", default=["Q4_0", "Q5_1"], choices=FILE_TYPES)
    parser.add_argument("--draws", type=int, default=3, help="calibration draws")
    parser.add_argument("--samples", type=int, default=64, help="calibration windows in a draw")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--windows", type=int, default=128, help="windows to measure on")
    parser.add_argument("--run-windows", type=int, default=32, help="windows to measure on in llama.cpp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="bench-out/gguf")
    return parser.parse_args()


def texts(args: argparse.Namespace) -> tuple[str, str]:
    if args.model:
        return tuple(Path(path).read_text(encoding="utf-8") for path in (args.train, args.eval))
    documents = starter.documents(args.seed, 2000 * args.draws)
    return "\n\n".join(documents), "\n\n".join(starter.held_out(args.seed, 1500))


def inputs(model: torch.nn.Module, windows: torch.Tensor, wanted: list[str], collect) -> None:
    """Calls `collect(name, x [tokens, in])` with what each of the `wanted` linears reads, batch by batch."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _module, given, name=name: collect(name, given[0].reshape(-1, given[0].shape[-1]))
        )
        for name in wanted
    ]
    with torch.inference_mode():
        for batch in windows.split(8):
            model(batch, use_cache=False)
    for hook in hooks:
        hook.remove()


def linears(model: torch.nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]


def imatrix(model: torch.nn.Module, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean squared inputs of every linear by the names of the file; of the head under the embedding's."""
    find = tensor_name(find_architecture(model.config, "the model"), model.config.num_hidden_layers)
    tied = {"output.weight": "token_embd.weight"} if model.config.tie_word_embeddings else {}
    sums: dict[str, torch.Tensor] = {}

    def collect(name: str, x: torch.Tensor) -> None:
        target = find(f"{name}.weight")
        target = tied.get(target, target)
        sums[target] = sums.get(target, 0) + x.double().square().sum(0)

    inputs(model, windows, linears(model), collect)
    return {name: (total / windows.numel()).float() for name, total in sums.items()}


def moments(model: torch.nn.Module, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Second moments of the inputs of the blocks' linears."""
    sums: dict[str, torch.Tensor] = {}

    def collect(name: str, x: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0) + x.t() @ x

    inputs(model, windows, [name for name in linears(model) if ".layers." in name], collect)
    return sums


def energy_lost(original: torch.nn.Module, lighter: torch.nn.Module, energies: dict[str, torch.Tensor]) -> float:
    """tr(D H Dᵀ) / tr(W H Wᵀ), D = W - Q, the mean over linears."""
    found = []
    for name, h in energies.items():
        w = original.get_submodule(name).weight.detach()
        d = w - lighter.get_submodule(name).weight.detach()
        found.append((((d @ h) * d).sum() / ((w @ h) * w).sum()).item())
    return float(np.mean(found))


def by_whet(model: Path, windows: torch.Tensor, scheme: str, out: Path, file: Path) -> None:
    lighter = out / "lighter"
    shutil.rmtree(lighter, ignore_errors=True)
    save_file({"windows": windows}, out / "calibration.safetensors")
    whet.compress(
        model,
        lighter,
        scheme=scheme,
        embed=scheme,
        target="llama.cpp",
        text=str(out / "calibration.safetensors"),
        samples=len(windows),
        window=windows.shape[1],
        device="cpu",
    )
    (lighter / "model.gguf").replace(file)


def by_llama_cpp(whole: Path, file: Path, scheme: str, importance: dict[str, torch.Tensor], weigh: bool) -> None:
    """What `llama-quantize --pure --imatrix` writes."""
    given = [(n.encode(), v) for n, v in importance.items() if weigh or n.startswith("blk.")]
    entries = (llama_cpp.llama_model_imatrix_data * (len(given) + 1))()
    for entry, (name, values) in zip(entries, given, strict=False):
        entry.name, entry.size = name, len(values)
        entry.data = ctypes.cast(values.data_ptr(), ctypes.POINTER(ctypes.c_float))
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.pure, settings.nthread = FILE_TYPES[scheme], True, 1
    settings.imatrix = ctypes.cast(entries, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    file.unlink(missing_ok=True)
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(file).encode(), settings):
        raise SystemExit("llama.cpp could not quantize the file")


def read_back(file: Path, original: torch.nn.Module) -> torch.nn.Module:
    """The file's weights in float32, decoded by the `gguf` package."""
    lighter, config = copy.deepcopy(original), original.config
    find = tensor_name(find_architecture(config, "the model"), config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with torch.no_grad():
        for name, parameter in lighter.named_parameters():
            tensor = stored[find(name)]
            value = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
            count = heads.get(name.split(".")[-2])
            if count:  # the file holds the halves of a head in pairs
                value = value.view(count, -1, 2, value.shape[-1]).swapaxes(1, 2).reshape(value.shape)
            parameter.copy_(value.view(parameter.shape))
    return lighter


def as_it_runs(file: Path, original: torch.nn.Module, windows: torch.Tensor) -> float:
    """Mean KL of what llama.cpp computes from the file."""
    engine, total = open_gguf(file, 1), []
    for batch in windows.split(8):
        with torch.inference_mode():
            mine = original(batch, use_cache=False).logits
        theirs = torch.cat(list(engine.logit_chunks(batch, batch.numel())), dim=1)
        total.append(score_tokens(mine[:, :-1], theirs[:, :-1], batch[:, 1:])[0])
    return torch.cat(total).double().mean().item()


if __name__ == "__main__":
    main()
