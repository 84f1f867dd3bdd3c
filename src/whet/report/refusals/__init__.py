"""The errors whet raises on purpose, in Korean, room by room.

The exceptions themselves are English, and so is everything that programs read; the command line says here, by its
wording, what an error names, why and what to do. As in `whet.report.sentences`, whose `in_korean` reads both, fields in
braces stand for what is named; `{near}` stands for the hint ` Did you mean X?` or for nothing.
"""

from __future__ import annotations

from whet.report.refusals.llamacpp import LLAMACPP
from whet.report.refusals.material import MATERIAL
from whet.report.refusals.models import MODELS
from whet.report.refusals.runs import RUNS
from whet.report.refusals.schemes import SCHEMES
from whet.report.refusals.usage import USAGE

REFUSALS: dict[str, str] = {**MODELS, **SCHEMES, **LLAMACPP, **MATERIAL, **RUNS, **USAGE}
