"""What a run takes out of a model, as it was asked for: how much, of which units, and by which importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from whet.errors import UsageError, did_you_mean
from whet.pruning.amounts import Amounts
from whet.pruning.channels import CHANNEL_IMPORTANCES, OBS
from whet.pruning.experts import EXPERT_IMPORTANCES

LAYER_IMPORTANCES = ("divergence", "perplexity", "influence", "evolution")
TAYLOR = "taylor"  # which takes a walk in reverse
# By unit, what can score it; the first is taken where nothing is said.
BY_UNIT: dict[str, tuple[str, ...]] = {
    "layers": LAYER_IMPORTANCES,
    "channels": (OBS, *(name for name in CHANNEL_IMPORTANCES if name != OBS), TAYLOR),
    "heads": (OBS, *(name for name in CHANNEL_IMPORTANCES if name != OBS), TAYLOR),
    "attention": LAYER_IMPORTANCES[:1],
    "ffn": LAYER_IMPORTANCES[:1],
    "experts": EXPERT_IMPORTANCES,
    "hidden": ("pca",),
}
OFFERED = ("layers", "channels", "heads", "experts")  # where nothing is said; the others only when they are named
SUB_BLOCKS = ("attention", "ffn")  # which blocks lose one by one
UNIFORM, FREE = SHAPES = ("uniform", "free")  # whether all blocks keep as much, or each what it is worth
BLIND = "magnitude"  # which needs no text
RIVALS = (OBS, "activation", "wanda")  # tried where nothing makes up for what goes, which obs counts on
PREDICTS_NOTHING = "influence"  # of blocks of a model that does not say what comes next


@dataclass(frozen=True)
class Removal:
    """share: of the blocks' parameters that goes. units: what may go. importance: by unit, by what it is chosen.
    repair: whether weights that stay make up for what goes. sizes: shares that are to stay of models that are cut
    later; where there are any, nothing goes now. free: whether blocks may differ in shape. offered: else the shapes
    without that share, of which there are models. rivals: importances of channels and heads that are tried, where none
    was named and nothing makes up for what goes. merge: whether experts that go are merged into those that stay."""

    share: Fraction
    units: tuple[str, ...]
    importance: Mapping[str, str]
    repair: bool
    sizes: tuple[Fraction, ...] = ()
    free: bool = False
    offered: tuple[Amounts, ...] = ()
    rivals: tuple[str, ...] = ()
    merge: bool = False

    def used(self, rival: str) -> dict[str, str]:
        """`importance`, with `rival` for what rivals score; without one as it is."""
        return {unit: rival if rival in BY_UNIT[unit] else name for unit, name in self.importance.items()}

    @property
    def blind(self) -> bool:
        """Whether no text is looked at."""
        return (
            not self.sizes
            and not self.free
            and not self.repair
            and all(self.importance[unit] == BLIND for unit in self.units)
        )

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "share": float(self.share),
            "units": list(self.units),
            "importance": dict(self.importance),
            "repair": self.repair,
            **({"sizes": [float(size) for size in self.sizes]} if self.sizes else {}),
            **({"shapes": FREE} if self.free else {}),
            **({"rivals": list(self.rivals)} if self.rivals else {}),
            **({"merge": True} if self.merge else {}),
        }


def parse_units(text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """`layers,channels` in the order of `known`; all of those without a text. Raises UsageError with a
    did-you-mean."""
    if text is None:
        return tuple(known)
    asked = parse_names(text)
    for name in asked:
        if name not in BY_UNIT:
            raise UsageError(
                "Unit {name!r} is not known.{near} Units: {known}.",
                name=name,
                near=did_you_mean(name, BY_UNIT),
                known=", ".join(BY_UNIT),
            )
    if not asked:
        raise UsageError("units is empty. Give one or more of {known}.", known=", ".join(BY_UNIT))
    return tuple(unit for unit in BY_UNIT if unit in asked)


def parse_shapes(text: str | None) -> bool:
    """Whether blocks may differ in shape, by the name of what is asked for. Raises UsageError with a did-you-mean."""
    if text is not None and text not in SHAPES:
        raise UsageError(
            "Shapes {name!r} are not known.{near} Shapes: {known}.",
            name=text,
            near=did_you_mean(text, SHAPES),
            known=", ".join(SHAPES),
        )
    return text == FREE


def parse_importance(text: str | None, units: Sequence[str]) -> dict[str, str]:
    """By unit what `text` (`wanda` or `wanda,influence`) says of it, else what is usual. Raises UsageError for a name
    that is not known, or that scores none of `units`."""
    found = {unit: BY_UNIT[unit][0] for unit in units}
    every = dict.fromkeys(name for names in BY_UNIT.values() for name in names)
    for name in parse_names(text or ""):
        if name not in every:
            raise UsageError(
                "Importance {name!r} is not known.{near} Importances: {known}.",
                name=name,
                near=did_you_mean(name, every),
                known=", ".join(every),
            )
        scored = [unit for unit in units if name in BY_UNIT[unit]]
        if not scored:
            raise UsageError(
                "Importance {name} scores {those}, and units are {units}. Give units it scores, or one of {known}.",
                name=name,
                those=", ".join(unit for unit in BY_UNIT if name in BY_UNIT[unit]),
                units=", ".join(units),
                known=", ".join(dict.fromkeys(one for unit in units for one in BY_UNIT[unit])),
            )
        found |= dict.fromkeys(scored, name)
    return found


def rivals_of(text: str | None, importance: Mapping[str, str], repair: bool) -> tuple[str, ...]:
    """Importances to try, of `importance` by unit, where `text` names none for channels and heads; with `repair`
    none."""
    named = OBS in parse_names(text or "")
    return RIVALS if OBS in importance.values() and not (named or repair) else ()


def parse_names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]
