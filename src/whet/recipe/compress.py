"""`compress`: one step `quantize` by itself, without a recipe around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.errors import UsageError, verb
from whet.events import OnEvent, ignore
from whet.steps.alone import leave_file
from whet.steps.quantize import quantize
from whet.steps.verbs import Compress, takes


@verb
@takes(Compress)
def compress(
    model: str | Path | None = None,
    out: str | Path | None = None,
    *,
    recipe: str | Path | Mapping[str, Any] | None = None,
    dry_run: bool = False,
    check_weights: bool = False,
    on_event: OnEvent = ignore,
    **options: Any,
) -> dict[str, Any]:
    """Write a lighter copy of `model` into the folder `out`.

    What to do is said in one of five ways. scheme: grid of the blocks' linears (`W4A16`, the default; `int4-g32`, …),
    with embed: of embedding and head, None leaves them. plan: a grid for each part, a file or a dict as
    `whet.budget.read_plan` takes it. fit: the most bytes of the weight files (`400MB`, `25%` of the original). bits:
    the most stored bits a parameter, everything counted. quality: the share of the original's to keep, at the fewest
    bytes; skills: items it is to hold for, a path or a list (with fit, bits and quality, which make a plan first).

    solver: `gptq` (the default; or say `good`), `nearest` (`fast`), which needs no text, `gptaq`, which makes up
    for what the blocks before a linear did to its inputs, `block`, which goes on from `gptq` and trains the linears
    of each block together, or `tuned`, which tunes all scales on top of that; `best` is `tuned` with text from the
    original beside yours, where yours is little. synthetic: tokens of such text; with any solver, 0 for none.
    transform: what is folded into the original first, so that it computes the same and rounds otherwise: `smooth`,
    `awq`, `rotate`, `quarot`, `spinquant`, or `auto`, which keeps of the first three what loses less of the whole
    on the verifying text. repair: with scheme and plan, the rank of an adapter that puts back what rounding lost of
    the blocks' linears, in `out`/adapter. sparsity: with scheme and plan, weights made 0 while quantizing, `2:4` or
    `50%`, chosen by importance (as `whet.masks` has it), or `kept`, those that are 0. target: the runtime that is
    to load it (`transformers` unless given; a plan names its own). folder: for llama.cpp, keep the Hugging Face
    folder beside the runtime's file. text: a path or hub name, a list of documents, or int64 windows `[n, L]`;
    eval_text: text that verifies instead of a tenth of `text`. samples, window: windows calibrated on and their tokens.
    recipe: all of this as a file, a preset's name (`w4`) or what such a file holds, which may name model and out too;
    what is given beside it goes over it. dry_run: check and estimate, write nothing; with check_weights also read every
    weight, which has to be finite.

    Returns a JSON-able dict: `out`, the choices, `sizes`, `kl` on verifying text (nats per token), `linears` with their
    relative errors, `seconds`, `notes`. Raises UsageError for wrong input and MachineError for lack of disk or memory,
    before the long part. A run that was stopped goes on with `resume(out)`, or by the same call again.
    """
    if recipe is not None:
        from whet.recipe.schema import recipe_arguments  # which takes every step there is into its model, once

        places = {name: place for name, place in (("model", model), ("out", out)) if place is not None}
        options = recipe_arguments(recipe, options | places, on_event)
        model, out = options.pop("model", None), options.pop("out", None)
    if model is None or out is None:
        raise UsageError(
            "{name} is missing: give the folder, or a recipe that names it.", name="model" if model is None else "out"
        )
    asked = Compress.of("compress", **options)
    made = quantize(
        model,
        out,
        asked,
        seed=asked.seed,
        device=asked.device,
        dry_run=dry_run,
        check_weights=check_weights,
        on_event=on_event,
    )
    return made if dry_run else leave_file(made)
