"""Surgery: what a model keeps, and the smaller model of the same family that it becomes.

Units are whole blocks (`layers`), the channels of a feed-forward (`channels`: a row of gate and up, a column of down),
key and value heads with the query heads that read them (`heads`), and experts with their rows of the router
(`experts`). Where every block keeps as many of each, what is left is a shape that config.json can say and that any
runtime of the family loads. Where they do not, as where a block loses a whole sub-block (all of its heads, which is its
attention, or all of its channels, its feed-forward), config.json has entries for each block (`anatomy.layers`). Of a
model whose residual stream is turned (`whet.transforms.turned`) the stream gets narrower too (`hidden`): its first
directions stay (`whet.anatomy.narrow`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.anatomy.family import architecture_of
from whet.anatomy.layers import SKIP, SKIPPED, SUB_BLOCKS, entries, per_layer
from whet.anatomy.model import Anatomy, Linear
from whet.anatomy.narrow import WIDTH, narrowed_block, narrowed_rest, why_not_narrowed
from whet.messages import Message

UNITS = ("layers", "channels", "heads", "experts", "hidden")
HIDDEN = "hidden"  # which is no unit of a block
PARTS = {"attention": "heads", "ffn": "channels"}  # sub-blocks, and the unit of which they are all
READERS = {"channels": "down", "heads": "o"}  # role of the linear whose columns are units
GIVERS = {"channels": ("gate", "up"), "heads": ("q", "k", "v", "qkv")}  # roles of those whose rows are
# Entries of config.json with a value for every block, and with numbers of blocks.
_PER_BLOCK = ("layer_types", "mlp_layer_types", "no_rope_layers")
_NUMBERS = "mlp_only_layers"
_INTERVAL = "decoder_sparse_step"  # every so many blocks have experts, but for those numbers
_QUERIES, _KEYS, _HEAD = "num_attention_heads", "num_key_value_heads", "head_dim"
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_CHOSEN = "num_experts_per_tok"
_NO_WIDTH = 1  # of a feed-forward, which none has
_TIED = "tie_word_embeddings"
# Of a larger model: its config of the text model, where that is not told beside the tower's, and those of towers, and
# the entry by which what they give enters blocks too.
_TEXT, _TOWERS, _INTO_BLOCKS = "text_config", ("vision_config",), "deepstack_visual_indexes"

Places = dict[str, list[tuple[int, Tensor]]]  # by stored name: dimensions, and the numbers along them that stay


@dataclass(frozen=True)
class Kept:
    """What stays of a model, by the original's numbers, ascending.

    layers: blocks. channels, heads, experts: by block; a block that is not among them keeps all of that unit, and one
    without any channel or head loses the sub-block. hidden: how many directions of a turned residual stream, the first
    ones; None: it is not turned, and stays.
    """

    layers: tuple[int, ...]
    channels: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    heads: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    experts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    hidden: int | None = None

    def record(self) -> dict[str, Any]:
        """As JSON: only what is not whole, of the blocks that stay."""
        found: dict[str, Any] = {"layers": list(self.layers)}
        for unit in ("channels", "heads", "experts"):
            mine = {str(i): list(numbers) for i, numbers in sorted(getattr(self, unit).items()) if i in self.layers}
            if mine:
                found[unit] = mine
        return found if self.hidden is None else found | {HIDDEN: self.hidden}

    def numbers(self, unit: str, whole: int) -> list[int]:
        """How many of a unit, of which there were `whole`, each block keeps."""
        mine: Mapping[int, tuple[int, ...]] = getattr(self, unit)
        return [len(mine[index]) if index in mine else whole for index in self.layers]


@dataclass(frozen=True)
class Cut:
    """Where a tensor of the smaller model comes from: `stored` in the original, and of its dimensions those that lose
    something, each with the numbers that stay; and a factor of all of it."""

    stored: str
    places: tuple[tuple[int, Tensor], ...] = ()
    factor: float = 1.0

    def of(self, tensor: Tensor) -> Tensor:
        """What stays of the original's tensor."""
        for dimension, numbers in self.places:
            tensor = tensor.index_select(dimension, numbers)
        return tensor.contiguous() if self.factor == 1.0 else tensor.contiguous() * self.factor

    def back(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """A tensor of the original's `shape`, float32, of which `tensor` is what stays; what went is 0."""
        found = tensor.float() / self.factor
        for dimension, numbers in reversed(self.places):
            wider = list(found.shape)
            wider[dimension] = shape[dimension]
            found = found.new_zeros(wider).index_copy_(dimension, numbers, found)
        return found

    def shape(self, before: Sequence[int]) -> tuple[int, ...]:
        """The shape that stays of `before`."""
        after = list(before)
        for dimension, numbers in self.places:
            after[dimension] = len(numbers)
        return tuple(after)


def unit_counts(parts: Anatomy, config: Mapping[str, Any]) -> dict[str, int | Message]:
    """How many of each unit every block has (of `layers`, the model), or why none of them can be taken."""
    family = parts.family
    if per_layer(config):
        return dict.fromkeys(UNITS, Message("its blocks differ in shape already"))
    if not family.known or family.found:
        return dict.fromkeys(UNITS, Message("whet has no row for the family {family}", family=parts.model_type))
    if len(family.stacks) > 1:
        return dict.fromkeys(UNITS, Message("{family} has two stacks of blocks", family=family.title))
    found: dict[str, int | Message] = {"layers": len(parts.blocks)}
    if any((config.get(tower) or {}).get(_INTO_BLOCKS) for tower in _TOWERS):
        found["layers"] = Message("images enter certain blocks by their numbers")
    config = family.entries or config
    if config.get("scale_attn_by_inverse_layer_idx"):
        found["layers"] = Message("its attention is scaled by the number of the block")
    for unit, reader in READERS.items():
        found[unit] = _count(parts, config, unit, reader)
    experts = {len({x.held.expert for x in linears if x.held.expert is not None}) for linears in parts.blocks} - {0}
    found["experts"] = experts.pop() if len(experts) == 1 else Message("its blocks have no experts")
    found[HIDDEN] = why_not_narrowed(parts, config) or parts.embedding.shape[1]
    return found


def _count(parts: Anatomy, config: Mapping[str, Any], unit: str, reader: str) -> int | Message:
    """How many channels or heads every block has, or why they cannot be taken."""
    readers = [x for linears in parts.blocks for x in linears if x.role == reader]
    if len(readers) != len(parts.blocks):
        return Message("experts stand where others have a feed-forward")
    widths = {x.shape[1] for x in readers}
    if len(widths) > 1:
        return Message("its blocks differ in width")
    width = widths.pop()
    if unit == "channels":
        return width
    count = config.get(_KEYS) or config.get(_QUERIES)
    givers = [x for linears in parts.blocks for x in linears if x.role in GIVERS[unit]]
    if (
        _QUERIES not in config
        or not isinstance(count, int)
        or count < 1
        or any(size % count for size in (width, *(x.shape[0] for x in givers)))
    ):
        return Message("its config has no width of a head apart from their number")
    return count


def columns(kept: Sequence[int], count: int, width: int) -> Tensor:
    """Which of `width` rows or columns, alike for each of `count` units, belong to the units `kept`."""
    size = width // count
    return (torch.tensor(list(kept), dtype=torch.int64)[:, None] * size + torch.arange(size)).reshape(-1)


def zeroed(w: Tensor, kept: Sequence[int], count: int) -> Tensor:
    """`w [out, in]` of a linear that reads `count` units, with 0 in every column of those that go: what the linear
    computes without them."""
    found = torch.zeros_like(w)
    at = columns(kept, count, w.shape[1])
    found[:, at] = w[:, at]
    return found


def resized(
    parts: Anatomy,
    config: Mapping[str, Any],
    built: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    kept: Kept,
) -> tuple[dict[str, Any], dict[str, Cut]]:
    """config.json of the smaller model, and by name where each of its tensors comes from.

    config: the original's, as stored. built: the same with every default filled in, as transformers does it; what the
    numbers of blocks decide (which of them attend to a window, which have experts) is written out. shapes: of the
    original's tensors.
    """
    cuts = {name: Cut(name) for name in parts.other_tensors if name != parts.dropped}
    if kept.hidden is not None:
        cuts |= {name: Cut(name, *found) for name, found in narrowed_rest(parts, kept.hidden).items()}
    counts = unit_counts(parts, built)
    for index in kept.layers:
        cuts |= _cuts(parts, counts, shapes, kept, index)
    built = parts.family.entries or built
    if parts.family.entries and isinstance(text := config.get(_TEXT), dict):
        return {**config, _TEXT: _config(parts, text, built, kept)}, cuts
    return _config(parts, config, built, kept), cuts


def block_cuts(
    parts: Anatomy, built: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], kept: Kept, index: int
) -> dict[str, Cut]:
    """By name where each tensor of the original's block `index` comes from, in the smaller model; as for `resized`."""
    return _cuts(parts, unit_counts(parts, built), shapes, kept, index)


def _cuts(
    parts: Anatomy,
    counts: Mapping[str, int | Message],
    shapes: Mapping[str, Sequence[int]],
    kept: Kept,
    index: int,
) -> dict[str, Cut]:
    places, names = _block(parts, index, kept, counts, shapes)
    new = kept.layers.index(index)
    narrowed = {} if kept.hidden is None else narrowed_block(parts, index, kept.hidden)
    cuts = {}
    for stored, found in places.items():
        more, factor = narrowed.get(stored, ((), 1.0))
        cuts[renumbered(parts, names[stored], index, new)] = Cut(stored, (*found, *more), factor)
    return cuts


def _block(
    parts: Anatomy,
    index: int,
    kept: Kept,
    counts: Mapping[str, int | Message],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[Places, dict[str, str]]:
    """What stays of the tensors of block `index`, and what each is called then, but for the block's number."""
    linears = parts.blocks[index]
    places: Places = {name: [] for name in parts.block_tensors[index]}
    names = {name: name for name in places}
    stored = {parts.name(name): name for name in places}
    for unit, reader in READERS.items():
        mine, count = getattr(kept, unit).get(index), counts[unit]
        if mine is None or not isinstance(count, int):
            continue
        if not mine:
            modules = tuple(f"{parts.block_prefix(index)}{module}." for module in SUB_BLOCKS[unit])
            places = {name: found for name, found in places.items() if not parts.name(name).startswith(modules)}
            continue
        for linear in (x for x in linears if x.role == reader):
            places[linear.parameter].append((0 if linear.transposed else 1, columns(mine, count, linear.shape[1])))
        for parameter in dict.fromkeys(x.parameter for x in linears if x.role in GIVERS[unit]):
            together = sorted((x for x in linears if x.parameter == parameter), key=_start)
            numbers = torch.cat([_rows(x, unit, mine, count) + _start(x) for x in together])
            places[parameter].append((1 if together[0].transposed else 0, numbers))
            bias = stored.get(f"{together[0].held.parameter.removesuffix('.weight')}.bias")
            if bias is not None:
                places[bias].append((0, numbers))
    if index in kept.experts:
        count = _cut_experts(parts, index, kept.experts[index], places, names)
        for module in parts.family.kept:
            for name in (n for n in places if parts.name(n).startswith(f"{parts.block_prefix(index)}{module}.")):
                if shapes[name][0] == count:
                    places[name].append((0, torch.tensor(kept.experts[index], dtype=torch.int64)))
    return places, names


def _start(linear: Linear) -> int:
    """The first row of a linear in its tensor."""
    return linear.rows[0] if linear.rows else 0


def _rows(linear: Linear, unit: str, kept: Sequence[int], count: int) -> Tensor:
    """Which rows of a linear stay; one of another unit, in the same tensor, keeps all."""
    whole = linear.role not in GIVERS[unit]
    return torch.arange(linear.shape[0]) if whole else columns(kept, count, linear.shape[0])


def _cut_experts(parts: Anatomy, index: int, kept: Sequence[int], places: Places, names: dict[str, str]) -> int:
    """Experts that go leave `places`; those that stay are numbered anew in stacks or `names`. Returns how many there
    were."""
    numbers = torch.tensor(list(kept), dtype=torch.int64)
    count = 0
    for linear in parts.blocks[index]:
        expert = linear.held.expert
        if expert is None:
            continue
        count = max(count, expert + 1)
        if linear.expert is not None:  # files stack them too
            places[linear.parameter] = [(0, numbers)]
        elif expert in kept:
            new = f".{list(kept).index(expert)}."
            names[linear.parameter] = re.sub(rf"\.{expert}\.(?!.*\.{expert}\.)", new, linear.parameter)
        else:
            places.pop(linear.parameter, None)
    return count


def renumbered(parts: Anatomy, name: str, index: int, new: int) -> str:
    """The stored name of a block's tensor once the block has another number."""
    stack = parts.block_prefix(index).removesuffix(f".{index}.").rpartition(".")[2]
    return re.sub(rf"(^|\.){re.escape(stack)}\.{index}\.", rf"\g<1>{stack}.{new}.", name, count=1)


def _config(parts: Anatomy, config: Mapping[str, Any], built: Mapping[str, Any], kept: Kept) -> dict[str, Any]:
    """config.json with the numbers of what stays."""
    family, before = parts.family, len(parts.blocks)
    made = dict(config) | {family.count[0]: len(kept.layers)}
    if len(kept.layers) < before:
        for entry in _PER_BLOCK:
            values = built.get(entry)
            if isinstance(values, list) and len(values) == before:
                made[entry] = [values[index] for index in kept.layers]
        if built.get(_INTERVAL):
            dense = [not any(x.held.expert is not None for x in parts.blocks[index]) for index in kept.layers]
            made |= {_INTERVAL: 1, _NUMBERS: [new for new, whole in enumerate(dense) if whole]}
    counts = {unit: count for unit, count in unit_counts(parts, built).items() if isinstance(count, int)}
    numbers = {unit: kept.numbers(unit, counts[unit]) for unit in READERS if unit in counts}
    alike = {unit: len(set(mine)) == 1 and mine[0] > 0 for unit, mine in numbers.items()}
    first = kept.layers[0]
    if kept.heads or kept.hidden is not None:
        reader = next(x for x in parts.blocks[first] if x.role == READERS["heads"])
        made[_HEAD] = reader.shape[1] // built[_QUERIES]
    if kept.hidden is not None:
        made |= {WIDTH: kept.hidden, _TIED: False}
    if not all(alike.values()):
        return _unlike(parts, made, built, numbers)
    if first in kept.channels:
        made[family.width] = numbers["channels"][0]
    if first in kept.heads:
        made |= _heads(config, built, numbers["heads"][0])
    if kept.experts:
        number = len(next(iter(kept.experts.values())))
        made |= {entry: number for entry in _EXPERTS if entry in config or entry in built}
    return made


def _heads(config: Mapping[str, Any], built: Mapping[str, Any], number: int) -> dict[str, int]:
    """The entries that say how many heads there are, with `number` of keys and values."""
    queries = {_QUERIES: built[_QUERIES] // (built.get(_KEYS) or built[_QUERIES]) * number}
    return {**queries, _KEYS: number} if built.get(_KEYS) or _KEYS in config else queries


def _unlike(
    parts: Anatomy, made: dict[str, Any], built: Mapping[str, Any], numbers: Mapping[str, list[int]]
) -> dict[str, Any]:
    """config.json where blocks differ: by unit the `numbers` that each keeps."""
    width = parts.family.width
    layers: dict[int, dict[str, Any]] = {}
    heads = {number for number in numbers["heads"] if number}
    for index, (channels, keys) in enumerate(zip(numbers["channels"], numbers["heads"], strict=True)):
        own = {} if not channels else {width: channels}
        own |= {} if len(heads) == 1 or not keys else _heads(made, built, keys)
        skipped = [SKIPPED[unit] for unit, count in (("heads", keys), ("channels", channels)) if not count]
        layers[index] = own | ({SKIP: skipped} if skipped else {})
    if len(heads) == 1:
        made |= _heads(made, built, *heads)
    architecture = architecture_of(made) or parts.family.architectures[0]
    # the stock class, which knows nothing of blocks that differ, must find no tensor of its shape
    return entries({**made, width: _NO_WIDTH}, architecture, layers)


def fewest_experts(built: Mapping[str, Any]) -> int:
    """How many experts every block needs: as many as a token is sent to."""
    chosen = built.get(_CHOSEN)
    return chosen if isinstance(chosen, int) and chosen > 0 else 1
