"""The parts of the table in `whet.cli.phrases` that stand in files of their own."""

from __future__ import annotations

from whet.cli.curate_phrases import CURATE
from whet.cli.phrases_aspects import ASPECT_STAGES
from whet.cli.phrases_choose import CHOOSE
from whet.cli.phrases_context import CONTEXT
from whet.cli.phrases_healed import HEALED
from whet.cli.phrases_planned import PLANNED
from whet.cli.phrases_trained import TRAINED
from whet.cli.phrases_written import WRITTEN

PARTS = CURATE | TRAINED | CHOOSE | ASPECT_STAGES | CONTEXT | PLANNED | WRITTEN | HEALED
