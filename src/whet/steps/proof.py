"""The proof of a lighter folder: what was written is loaded as its readers will, and computes what was solved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from whet.apply.job import Job
from whet.checkpoint import Checkpoint, attach_adapter, load_as_others, load_lighter, load_model, quiet_transformers
from whet.engines.cache import new_cache, scales_in
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError
from whet.formats import reading

# Dense bytes up to which the finished folder is loaded once more by stock transformers as a proof.
PROVED = 2**30
_SAID = 200  # letters of another's error


def prove(out: Path, job: Job) -> dict[str, Any]:
    """Load what was written as its readers will, and raise GateError unless it computes what was solved.

    Small models (under 1 GiB dense) are loaded by stock transformers and compared with whet's own reading, logits and
    cached against uncached; for larger ones every stored linear was already decoded again when it was written.
    """
    written = Checkpoint(out)
    dense = sum(i.nbytes for i in job.checkpoint.tensors.values())
    # what was found of every linear when it was written
    result: dict[str, Any] = {} if job.storage.dense else {"stored": "decoded again, equal"}
    if job.sparsity is not None:
        result["masks"] = "exact zeros"
    if dense > PROVED:
        return {**result, "loaded": "not run: the model is too large to load beside this run"}
    tokens = (job.solve or [torch.arange(16) % job.anatomy.embedding.shape[0]])[0][None, :64]
    how = reading(job.anatomy, job.apart, job.storage.decode)
    own = load_lighter(written, how["linears"], job.dtype, job.device, how.get("names"), "convert" in how)
    if job.repaired:
        attach_adapter(own, out, job.device)
    with torch.no_grad(), quiet_transformers():
        logits = outputs(own, tokens)
        if not torch.isfinite(logits).all():
            raise GateError(
                "{out}: the lighter model computes values that are not finite on its own calibration text.", out=out
            )
        gap = None
        if job.anatomy.task in ("causal", "seq2seq") and job.anatomy.family.known:
            try:
                gap = _gap(own, tokens, logits)
            except Exception as error:  # the code of a family that nobody here knows
                if not job.anatomy.family.found:
                    raise
                result["cached against uncached"] = f"not run: {type(error).__name__}: {error}"[:_SAID]
        scale = logits.float().abs().max().item()
        tolerance = {torch.float32: 1e-4, torch.float16: 2e-2}.get(job.dtype, 1e-1) * max(scale, 1.0)
        if gap is not None:
            result["cached against uncached"] = gap
        # a last bit that differs may round an input to its other neighbour, which moves logits by more than arithmetic
        room = 2e-1 * max(scale, 1.0) if job.inputs else tolerance
        # transformers' own code may differ from itself: then the original does too, and nothing is wrong with this one
        if gap is not None and gap > room and (before := _gap_of_original(job, tokens)) <= room:
            raise GateError(
                "{out}: generation with a cache differs from generation without by {gap:.3g} in the logits.",
                out=out,
                gap=gap,
            )
        if gap is not None and gap > room:
            result["cached against uncached, original"] = before
        if job.storage.stock:
            stock = load_as_others(written, None, job.device)
            if job.repaired:
                attach_adapter(stock, out, job.device)
            theirs = outputs(stock, tokens)
            if job.kv is not None:
                logits = _kept(own, written, job.kv.name, tokens)
            difference = (theirs.float() - logits.float()).abs().max().item()
            if not difference <= tolerance * 0.1:  # not a number is no agreement either
                raise GateError(
                    "{out}: stock transformers computes other logits than the quantized weights give "
                    "(largest difference {difference:.3g}). Check the versions of transformers and compressed-tensors "
                    "(>= 0.18).",
                    out=out,
                    difference=difference,
                )
            result["stock transformers"] = difference
    return result


def _kept(model: PreTrainedModel, written: Checkpoint, kind: str, tokens: Tensor) -> Tensor:
    """Logits `[b, L, vocabulary]` with keys and values kept under the scales that were written."""
    scales = scales_in(written, written.tensors)
    cache = new_cache(model, [kind] * len(scales), scales)
    return model(input_ids=tokens.to(model.device), past_key_values=cache, use_cache=True).logits  # type: ignore[no-any-return]


def _gap(model: PreTrainedModel, tokens: Tensor, logits: Tensor) -> float | None:
    """How far the last logits with a cache are from those without, `[b, L, vocabulary]`; None without a cache."""
    cached = cached_outputs(model, tokens)
    return None if cached is None else (cached[:, -1].float() - logits[:, -1].float()).abs().max().item()


def _gap_of_original(job: Job, tokens: Tensor) -> float:
    """The same of the original."""
    model = load_model(job.original.path, job.dtype, job.device)
    return _gap(model, tokens, outputs(model, tokens)) or 0.0
