"""How a folder came to be: the manifest that a step writes, which goes on from that of the folder it read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import compressed_tensors
import torch
import transformers

from whet import __version__
from whet.checkpoint import BaseModelName, Checkpoint, Manifest


def next_manifest(
    source: Checkpoint, record: Mapping[str, Any], *, name: str, sha256: str | None, container: str, **what: Any
) -> Manifest:
    """The manifest of what a step made of `source`: the first original for base model, the lineage by `record` longer.

    record: what the step did, as plain JSON; versions are added. name, sha256: of `source`, where it is an original.
    container: how tensors are stored, `dense` for weights themselves. what: the manifest's other keys.
    Raises UsageError where `source` has changed since it was examined.
    """
    source.check_unchanged()
    before = source.whet or {}
    versions = {
        "whet": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "compressed-tensors": compressed_tensors.__version__,
    }
    return Manifest(
        base_model=BaseModelName(**(before.get("base_model") or {"name": name, "sha256": sha256})),
        container=container,
        lineage=[*before.get("lineage", ()), {**record, "versions": versions}],
        **what,
    )
