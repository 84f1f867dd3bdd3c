"""Whole models in memory, original or lighter, and their size on disk by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from whet.anatomy import (
    auto_class,
    layer_counts,
    needs_code,
    per_layer,
    quantized_by,
    stock_config,
)
from whet.checkpoint.adapter import ADAPTER, WEIGHTS, Factors, attach, read_factors
from whet.checkpoint.beside import inside, refuse_links
from whet.checkpoint.files import read_header
from whet.checkpoint.folder import Checkpoint
from whet.checkpoint.growth import check_growth
from whet.checkpoint.modeling_per_layer import reshape
from whet.checkpoint.modeling_whet import converted, fill
from whet.checkpoint.no_model import refuse_pointers_in, refuse_unfinished
from whet.checkpoint.packing_whet import Packing
from whet.checkpoint.precisions import check_precision
from whet.checkpoint.sane import with_type
from whet.checkpoint.switch_whet import Switch, precisions_of, table_at
from whet.checkpoint.table import check_fitting, check_stored
from whet.errors import UsageError
from whet.paths import find_folder
from whet.strict import parse_json


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the progress bars of transformers and compressed-tensors: only whet's command line prints."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    start = tqdm.__init__

    def silent(self: tqdm, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **{**kwargs, "disable": True})

    tqdm.__init__ = silent  # type: ignore[method-assign]
    try:
        yield
    finally:
        tqdm.__init__ = start  # type: ignore[method-assign]
        if shown:
            logging.enable_progress_bar()


def model_config(checkpoint: Checkpoint) -> Any:
    """The transformers config of a folder, as of the stock architecture (whet's own entries left out)."""
    _must_be_buildable(checkpoint)
    try:
        return stock_config(checkpoint.config)
    except Exception as error:  # whatever a damaged entry leads to
        if "Unrecognized model" in str(error) and (refused := needs_code(checkpoint.config, str(checkpoint.path))):
            raise refused from error
        raise _unusable(checkpoint, error) from error


def context_length(checkpoint: Checkpoint) -> int | None:
    """The most tokens a sequence may have by the config, whatever the family calls it; None where none is said."""
    value = getattr(model_config(checkpoint).get_text_config(), "max_position_embeddings", None)
    return value if isinstance(value, int) and value > 0 else None


def _must_be_buildable(checkpoint: Checkpoint) -> None:
    """Refuses a config with more layers than tensors could be of: lists that long are made before any check."""
    for key, value in layer_counts(checkpoint.config):
        if value > max(_LAYERS, len(checkpoint.tensors)):
            raise UsageError(
                "{file} says {key} = {value}, and the weight files hold {count} tensors. The config is damaged; "
                "download it again.",
                file=checkpoint.path / "config.json",
                key=key,
                value=value,
                count=len(checkpoint.tensors),
            )


def model_class(checkpoint: Checkpoint) -> Any:
    """`whet.anatomy.auto_class` of the folder."""
    return getattr(transformers, auto_class(checkpoint.config))


def empty_model(checkpoint: Checkpoint, dtype: torch.dtype) -> PreTrainedModel:
    """The architecture that config.json describes, on the meta device: shapes without values."""
    config = model_config(checkpoint)
    try:
        with torch.device("meta"):
            model = model_class(checkpoint).from_config(config, dtype=dtype, trust_remote_code=False)
            reshape(model, per_layer(checkpoint.config))
            return model  # type: ignore[no-any-return]
    except Exception as error:  # an assertion, a division by a number of heads that is 0
        raise _unusable(checkpoint, error) from error


def differing_shape(
    checkpoint: Checkpoint, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> tuple[str, tuple[int, ...]] | None:
    """The first parameter, and its shape, whose shape is not that of `shapes` in the model that transformers builds by
    another `config` of the same family; None where there is none. Raises what transformers raises where it refuses the
    config. (Experts that files hold one by one have no name there.)"""
    with torch.device("meta"):
        model = model_class(checkpoint).from_config(stock_config(dict(config)), trust_remote_code=False)
        reshape(model, per_layer(config))
    every = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return next(((n, every[n]) for n, shape in shapes.items() if n in every and every[n] != tuple(shape)), None)


def load_model(
    folder: str | Path,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    packing: Packing | None = None,
    precision: int | None = None,
) -> PreTrainedModel:
    """A causal language model in evaluation mode from an original or a lighter folder.

    dtype: type to compute in; None takes the one config.json names. Weights of a lighter folder are computed from its
    codes by the one definition in `modeling_whet`, whatever container it has, and what whet.json names as its adapter
    runs beside them. packing: keeps codes packed, and has None compute in bfloat16 (`packing_whet`). precision:
    of a folder of several the bits to begin with, the most unless given; such a model has `set_precision`. No remote
    code is run.
    """
    checkpoint = Checkpoint(folder)
    check_precision(checkpoint, precision)
    config = model_config(checkpoint)
    if packing is not None and not checkpoint.dense:
        dtype = dtype or torch.bfloat16
    dtype = dtype or config.dtype or checkpoint.dtype
    if checkpoint.dense and per_layer(checkpoint.config):
        return load_lighter(checkpoint, {}, dtype, device)
    if checkpoint.dense:
        return _load_dense(checkpoint, config, dtype).eval().to(device)  # type: ignore[arg-type]
    if checkpoint.whet is None:
        refuse_unfinished(checkpoint.path)
        raise UsageError(
            "{folder} was quantized by another tool ({method}). whet loads originals and its own folders: give the "
            "original (unquantized) checkpoint; it is usually named in the model card as base_model.",
            folder=checkpoint.path,
            method=quantized_by(checkpoint.config),
        )
    reading = checkpoint.whet.get("reading") or checkpoint.whet
    model = load_lighter(
        checkpoint,
        reading["linears"],
        dtype,
        device,
        reading.get("names"),
        reading.get("convert", False),
        packing,
        precision,
    )
    if "adapter" in checkpoint.whet:
        attach_adapter(model, checkpoint.path, device)
    return model


def _load_dense(checkpoint: Checkpoint, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """What transformers makes of a folder. Raises UsageError where it would make up weights that no file holds."""
    kind, decoded = model_class(checkpoint), None
    if checkpoint.stored_in is not None:
        kind = type(empty_model(checkpoint, dtype))
        decoded = {name: checkpoint.read(name) for name in checkpoint.tensors}
    try:
        with quiet_transformers():
            model, found = kind.from_pretrained(
                checkpoint.path if decoded is None else None,
                config=config,
                dtype=dtype,
                state_dict=decoded,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # sizes and counts that no tensor fits
        raise _unusable(checkpoint, error) from error
    if missing := sorted(found["missing_keys"]):
        raise UsageError(
            "{folder}: no file holds {names}. The folder is incomplete.",
            folder=checkpoint.path,
            names=", ".join(missing[:3]),
        )
    return model  # type: ignore[no-any-return]


def load_as_others(checkpoint: Checkpoint, dtype: torch.dtype | None, device: str) -> PreTrainedModel:
    """A model as transformers loads it without whet. Where its blocks differ in shape that runs the Python file in the
    folder, so this is for a folder that whet wrote just now. dtype: None takes the one config.json names."""
    given = {} if dtype is None else {"dtype": dtype}
    trusted = bool(per_layer(checkpoint.config))
    with quiet_transformers():
        model = model_class(checkpoint).from_pretrained(
            checkpoint.path, local_files_only=True, trust_remote_code=trusted, **given
        )
    return model.eval().to(device)  # type: ignore[no-any-return]


def attach_adapter(model: PreTrainedModel, folder: Path, device: str) -> None:
    """Have `model`, which was loaded from a lighter folder, give what the adapter in it adds too."""
    factors = {name: Factors(b, a) for name, (b, a) in read_factors(adapter_file(folder)).items()}
    attach(model, factors, device)


def adapter_size(folder: Path) -> int:
    """Bytes of the tensors of the adapter in a lighter folder."""
    return sum(info.nbytes for info in read_header(adapter_file(folder)).values())


def adapter_file(folder: Path) -> Path:
    """The weights of the adapter in a lighter folder. Raises UsageError where they are missing."""
    file = folder / ADAPTER / WEIGHTS
    if not file.is_file():
        raise UsageError(
            "{folder}: whet.json names an adapter, and {file} is missing. Copy the folder again, with "
            "the folders in it.",
            folder=folder,
            file=f"{ADAPTER}/{WEIGHTS}",
        )
    if not inside(folder, file):
        raise UsageError("{file} lies outside the folder. Do not use this model.", file=file)
    return file


def load_lighter(
    checkpoint: Checkpoint,
    table: dict[str, dict[str, Any]],
    dtype: torch.dtype,
    device: str,
    names: dict[str, str] | None = None,
    convert: bool = False,
    packing: Packing | None = None,
    precision: int | None = None,
) -> PreTrainedModel:
    """A model whose quantized linears are those of `table` (address → bits, group, zero, place), computed in `dtype`.

    names: what the model calls tensors that are stored under other names. convert: have transformers find that out,
    which decodes all. packing: keeps codes packed. precision: of several, the bits to begin with.
    """
    table = table_at(table, precision)
    given = check_stored(checkpoint, table)
    model = empty_model(checkpoint, dtype)
    files = sorted({info.file.name for info in checkpoint.tensors.values()})
    if convert:
        try:
            with quiet_transformers():
                return converted(model, checkpoint.path, files, table, device)
        except Exception as error:  # weights that do not fit the architecture
            raise _unusable(checkpoint, error) from error
    check_fitting(checkpoint, table, given, model, names or {})
    missing = fill(model, checkpoint.path, files, table, device, names, packing)
    if missing:
        raise UsageError(
            "{folder}: no file holds {names}. The folder is incomplete.",
            folder=checkpoint.path,
            names=", ".join(missing[:3]),
        )
    if precisions_of(table):
        model.set_precision = Switch(  # type: ignore[assignment]
            model,
            table,
            precision,
            lambda one, at, how: fill(one, checkpoint.path, files, at, device, names, how, several=True),
            lambda: empty_model(checkpoint, dtype),
            None if packing is None else lambda: Packing(packing.at_use),
        )
    return model.eval()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer. Raises UsageError when it has none, one that is code of its own, or one that makes
    thousands of letters of one."""
    path = find_folder(folder)
    refuse_pointers_in(path)
    if not any((path / name).is_file() for name in _TOKENIZERS):
        # for some families transformers would make up an empty one
        raise UsageError(
            "{folder} has no tokenizer ({file} or the like). Put tokenizer.json and tokenizer_config.json of the "
            "model into the folder.",
            folder=path,
            file=_TOKENIZERS[0],
        )
    refuse_links(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, **_config_for_tokenizers(path)
        )
        if not isinstance(tokenizer.model_max_length, (int, float)):
            raise TypeError(f"model_max_length is {str(tokenizer.model_max_length)[:60]}")
    except Exception as error:  # the tokenizers package raises plain exceptions for damaged files
        if "trust_remote_code" in str(error):
            raise UsageError(
                "{folder}: its tokenizer is code of its own, which whet never runs. Give a copy of the model with a "
                "tokenizer.json, and without auto_map in tokenizer_config.json.",
                folder=path,
            ) from error
        said = (str(error) or type(error).__name__).splitlines()[0][:_SAID]
        raise UsageError(
            "{folder} has no tokenizer that transformers can load ({error}). Put tokenizer.json and "
            "tokenizer_config.json of the model into the folder.",
            folder=path,
            error=said,
        ) from error
    check_growth(tokenizer, path)
    return tokenizer


def _config_for_tokenizers(folder: Path) -> dict[str, Any]:
    """The config to hand to the tokenizers' loader where it cannot read the folder's own, for the type it names."""
    try:
        said = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(said, dict) or with_type(dict(said)) == said:
        return {}
    return {"config": stock_config(with_type(said))}


def answer_of(out: Any) -> Tensor:
    """Of a model's output its logits; of one that marks answers both marks, [b, 2, L]; of a base model its last hidden
    states, [b, L, hidden]."""
    if (logits := getattr(out, "logits", None)) is not None:
        return logits  # type: ignore[no-any-return]
    if (start := getattr(out, "start_logits", None)) is not None:
        return torch.stack((start, out.end_logits), dim=1)
    return out.last_hidden_state  # type: ignore[no-any-return]


_SAID = 300  # letters of another's error
_LAYERS = 1000  # more than any model has


def _unusable(checkpoint: Checkpoint, error: Exception) -> UsageError:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    what = what if len(what) < _SAID else what[:_SAID] + " …"
    return UsageError(
        "{file}: transformers cannot build a model from it ({error}). Download it again, or mend the entry it names.",
        file=checkpoint.path / "config.json",
        error=what,
    )


_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tokenizer_config.json",
)
