"""The step `export`: the model as the one file that a runtime reads."""

from __future__ import annotations

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
    file = request.out / f"model.{options.to}"
    file.unlink(missing_ok=True)  # of an attempt that was killed
    return export(
        request.source,
        to=options.to,
        out=file,
        kind=options.kind,
        dequantize=options.dequantize,
        on_event=request.on_event,
    )
