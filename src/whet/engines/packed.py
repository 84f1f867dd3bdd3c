"""Models that stay packed in memory: what was asked for, what became of it, and the verb `load`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from whet.checkpoint import check_files, load_model
from whet.checkpoint.gguf import is_gguf
from whet.checkpoint.model_files import model_file
from whet.checkpoint.packing_whet import Packing
from whet.engines.dynamic import check_asked, open_choosing
from whet.engines.torch import dtype_of, resolve_device
from whet.errors import UsageError, verb
from whet.events import OnEvent, ignore, note_event
from whet.messages import Message

# Why PyTorch has no kernel for a linear.
_WHY = {
    "floats": Message("8-bit floats"),
    "values": Message("values of a table that are no whole numbers"),
    "group": Message("scales of other than a multiple of 32 columns"),
    "form": Message("a grid with a decoder of its own"),
    "device": Message("this device has no int4 kernel"),
    "model": Message("the model's code reads these weights itself"),
}


@verb
def load(
    folder: str | Path,
    *,
    fast: bool = False,
    packed: bool = False,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    precision: int | None = None,
    active: str | float | None = None,
    task: str | None = None,
    on_event: OnEvent = ignore,
) -> PreTrainedModel:
    """A model folder, original or lighter, as a transformers model in evaluation mode.

    fast: linears of a lighter folder stay packed where PyTorch has a kernel for their codes; the model computes in
    bfloat16 unless `dtype` says otherwise. packed: linears without a kernel too, which are decoded whenever they are
    used. Without either every weight is decoded, exactly as whet measures it. precision: of a folder of several
    (`whet.compress(precisions="8,4,2")`) the bits to begin with, the most unless given; `model.set_precision(4)` then
    changes it, without loading anything anew. active, task: of a folder of
    `whet.dynamic`, the model that has that share of the channels alone, those that the text `task` chooses. Raises
    UsageError for what is wrong with the folder; a `note` tells what no kernel takes.
    """
    folder = model_file(folder)
    if is_gguf(folder):
        raise UsageError("{path} runs in llama.cpp. Give a model folder, or use whet.generate.", path=folder)
    check_files(folder, on_event)
    if active is not None or task is not None:
        check_asked(active, task, False, {"fast": fast, "packed": packed, "precision": precision})
        if task is None or active is None:
            raise UsageError("active is a share of channels, and task the text that chooses them. Give both to load.")
        return open_choosing(folder, active, task, device, dtype).sliced(()).model
    packing = packing_of(fast, packed)
    model = load_model(folder, dtype_of(dtype), resolve_device(device), packing, precision)
    tell_packing(packing, folder, on_event)
    return model


def packing_of(fast: bool, packed: bool) -> Packing | None:
    """What is to stay packed; None where every weight is decoded."""
    return Packing(at_use=packed) if fast or packed else None


def tell_packing(packing: Packing | None, folder: str | Path, on_event: OnEvent) -> None:
    """Say, once a model is loaded, where it computes from something other than its packed codes."""
    if packing is None:
        return
    count = sum(packing.without.values())
    if not packing.kept and not count:
        message = Message(
            "{folder} has no packed weights that could stay so: it computes as without --fast and --packed.",
            folder=Path(folder).name,
        )
        on_event(note_event(message))
    for why, some in packing.without.items():
        decoded = Message(
            "{folder}: PyTorch has no kernel for {count} linears ({why}). They are decoded, and take their full size "
            "in memory; --packed (in Python packed=True) decodes them at each use instead, which is slow.",
            folder=Path(folder).name,
            count=some,
            why=_WHY[why],
        )
        at_use = Message(
            "{folder}: PyTorch has no kernel for {count} linears ({why}). They are decoded at each use, which is slow.",
            folder=Path(folder).name,
            count=some,
            why=_WHY[why],
        )
        on_event(note_event(at_use if packing.at_use and why not in ("form", "model") else decoded))
