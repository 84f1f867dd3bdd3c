"""Which weights of a job are to be 0: the rule, from options and from what whet.json says of the original's zeros."""

from __future__ import annotations

from collections.abc import Sequence

from whet.anatomy import Linear
from whet.apply.job import Job
from whet.errors import UsageError
from whet.grids import parse_scheme
from whet.pruning import Grouped, Sparsity, find_importance, parse_pattern
from whet.quantize import Effort, holds_zero
from whet.steps.options import IMPORTANCE, Quantize
from whet.steps.original import Original
from whet.targets import find_target

BLIND = "magnitude"  # where no text is looked at
KEPT = "kept"  # the zeros that are there, whoever made them
_SHOWN = 3  # addresses in a message


def rule_of(asked: Quantize, effort: Effort, opened: Original) -> Sparsity | None:
    """What is to be 0 of a lighter model: what the original's masks say, and what is asked for beside it."""
    kept = masks_before(opened)
    if asked.sparsity is None:
        if asked.importance is not None:
            raise UsageError(
                "importance {importance} tells which weights become 0, and none are to. Give --sparsity 2:4 or a "
                "share such as 50% too, or leave importance out.",
                importance=asked.importance,
            )
        return Sparsity(kept=kept) if kept else None
    if asked.sparsity == KEPT:
        if asked.importance is not None:
            raise UsageError(
                "importance {importance} tells which weights become 0, and --sparsity {kept} takes no more than are "
                "already. Leave importance out.",
                importance=asked.importance,
                kept=KEPT,
            )
        unknown: dict[str, str | None] = {"pattern": None, "importance": None}
        return Sparsity(kept={linear.address: kept.get(linear.address, unknown) for linear in opened.parts.linears()})
    importance = asked.importance or (BLIND if not effort.text and asked.text is None else IMPORTANCE)
    pattern = parse_pattern(asked.sparsity, find_importance(importance).within)
    rule = Sparsity(pattern, importance, kept)
    check_importance(rule, opened)
    return rule


def masks_before(opened: Original) -> dict[str, dict[str, str | None]]:
    """By address how the masks that the original has were chosen."""
    before = (opened.checkpoint.whet or {}).get("masks") or {}
    return {
        linear.address: {key: before[linear.address][key] for key in ("pattern", "importance")}
        for linear in opened.parts.linears()
        if linear.address in before
    }


def check_importance(rule: Sparsity, opened: Original) -> None:
    """Raises UsageError where weights are to be judged by inputs that nobody knows."""
    if rule.inputs and not opened.parts.family.known:
        raise UsageError(
            "whet has no table of the family {model_type}, so it does not know what its linears read, by which "
            "importance {importance} judges weights. Give --importance {blind}.",
            model_type=opened.parts.model_type,
            importance=rule.importance,
            blind=BLIND,
        )


def check_sparsity(job: Job) -> None:
    """Raises UsageError for a pattern that a runtime makes nothing of, for rows that it does not divide, for grids that
    hold no exact zero, and for transforms that would fill zeros."""
    rule = job.sparsity
    if rule is None:
        return
    masked = [x for x in job.chosen(job.anatomy.linears()) if rule.pattern is not None or x.address in rule.kept]
    target = find_target(job.target)
    if isinstance(rule.pattern, Grouped) and (target.gguf or target.graph):
        raise UsageError(
            "{target} has no kernel for {pattern}: a file for it would be as large and as slow as without zeros, and "
            "worse. Leave --sparsity out, or use --for transformers, whose folders hold the zeros.",
            target=target.name,
            pattern=rule.pattern.name,
        )
    if rule.pattern is not None:
        ragged = [(x, why) for x in masked if (why := rule.pattern.fault(x.shape[1])) is not None]
        if ragged:
            raise UsageError(
                "{pattern} does not fit {named}: {ragged}. Give another pattern, or a share of weights such as 50%.",
                pattern=rule.pattern.name,
                named=_named([x for x, _ in ragged]),
                ragged=ragged[0][1],
            )
    lost = [linear for linear in masked if not holds_zero(job.grids[linear.address])]
    if lost:
        schemes = ", ".join(dict.fromkeys(job.grids[linear.address].name for linear in lost))
        raise UsageError(
            "{schemes} has no exact zero, so masks would be lost ({named}). Give {holding}.",
            schemes=schemes,
            named=_named(lost),
            holding=_holding(job.target),
        )
    if rule.kept and (job.folding.rotates or job.folding.judged):
        raise UsageError(
            "--transform {transform} turns weights into sums of others, which would fill the zeros that the "
            "original's masks say. Give smooth or awq, which only scale, or no transform.",
            transform=job.transform,
        )


def _named(linears: Sequence[Linear]) -> str:
    more = len(linears) - _SHOWN
    return ", ".join(linear.address for linear in linears[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _holding(target: str) -> str:
    """Schemes that a runtime takes and that hold a zero."""
    own = find_target(target).schemes
    if not own:
        return "a scheme that has: symmetric or with an integer zero, such as int4-g32, int4s-g32, FP8 or NVFP4"
    return f"one of {', '.join(name for name in own if holds_zero(parse_scheme(name)))}"
