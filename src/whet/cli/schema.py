"""`whet schema`: the JSON Schema of a plan or a recipe, for editors that complete and check while one types."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer

from whet.cli.options import Debug, Json

EXAMPLE = "Example: whet schema recipe > recipe.schema.json"


class Document(StrEnum):
    """What people write by hand."""

    plan = "plan"
    recipe = "recipe"


def run(
    document: Annotated[Document, typer.Argument(metavar="DOCUMENT", help="plan or recipe.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Print the JSON Schema of a plan or a recipe."""
    if document is Document.plan:
        from whet.budget import plan_schema as schema
    else:
        from whet.recipe.schema import recipe_schema as schema
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
    return 0
