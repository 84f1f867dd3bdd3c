"""The step `export`: the model as what a runtime reads."""

from __future__ import annotations

import shutil
from typing import Any

from whet.checkpoint import Checkpoint
from whet.errors import UsageError, did_you_mean
from whet.formats.export import FORMATS, export
from whet.steps.request import Request


def run(request: Request) -> dict[str, Any]:
    """Write the file into `request.out` and prove it; returns as `whet.export`."""
    options = request.options
    if options.to not in FORMATS:
        raise UsageError(
            "Format {name!r} is not known.{near} Formats: {known}.",
            name=options.to,
            near=did_you_mean(options.to, FORMATS),
            known=", ".join(FORMATS),
        )
    if request.dry_run:
        size = Checkpoint(request.source).nbytes
        return {"memory": size, "disk": size, "seconds": 0.0, "notes": []}
    request.out.mkdir(parents=True, exist_ok=True)
    if options.to != "gguf":  # a folder
        file = request.out / options.to
        shutil.rmtree(file, ignore_errors=True)  # of an attempt that was killed
    else:
        file = request.out / f"model.{options.to}"
        file.unlink(missing_ok=True)
    return export(
        request.source,
        to=options.to,
        out=file,
        kind=options.kind,
        dequantize=options.dequantize,
        on_event=request.on_event,
    )
