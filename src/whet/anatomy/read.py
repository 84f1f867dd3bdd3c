"""The parts of a model, read off its config and the shapes of its stored tensors."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from whet.anatomy.families import FAMILIES
from whet.anatomy.family import HEADLESS, Family, LinearName, architecture_of, task_of
from whet.anatomy.inner import LIKE, naming, text_entries, within
from whet.anatomy.layers import gone
from whet.anatomy.model import Anatomy, Linear, View
from whet.anatomy.unknown import built, described, needs_code, quantized_by
from whet.errors import UsageError, did_you_mean
from whet.messages import Message


def anatomy(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    source: str = "the model",
    family: Family | None = None,
) -> Anatomy:
    """Read the parts off a model's `config` and the `shapes` of its stored tensors.

    family: its row; the one in the table unless given. A family that is not in the table is described by the model
    that transformers builds: only the linears in its longest list of blocks. Raises UsageError for one that
    transformers does not know either, for an already quantized model, and where config and tensors disagree about
    what there is.
    """
    family = family or _family(config, shapes, source)
    architecture, entries = architecture_of(config), family.entries or config
    counts = _counts(family, entries, source)
    names = {stored: family.module_name(stored) for stored in shapes}
    where = _Stored(entries, shapes, _stored_as(names, source), source)
    found: dict[str, list[str]] = {}
    other: list[str] = []
    pattern = re.compile("(" + "|".join(re.escape(stack) for stack in family.stacks) + r")\.(\d+)\.")
    end = _end(entries, counts)
    for stored, name in names.items():
        match = pattern.match(name)
        if match and int(match[2]) < end and not name.endswith(family.computed):
            found.setdefault(match.group(), []).append(stored)
        else:
            other.append(stored)
    prefixes = _prefixes(family, counts, found, config, source)
    blocks = [_block(family, prefix, where, gone(entries, index)) for index, prefix in enumerate(prefixes)]
    embedding = where.table(family.embedding, "embedding", "tokens")
    width = blocks[0][0].shape[1] if family.counted else 0
    if family.counted and embedding.shape[1] != width:
        raise UsageError(
            "{source}: its embedding is {embedding} wide and its blocks are {width}, with a projection in between. No "
            "{family} that whet knows has one; use a checkpoint where the two are alike.",
            source=source,
            embedding=embedding.shape[1],
            width=width,
            family=family.title,
        )
    task = family.task(architecture)
    head_name = where.stored_as.get(f"{family.head}.weight", f"{family.head}.weight")
    tied = bool(entries.get("tie_word_embeddings", family.ties))
    head = _head(family, where, head_name) if task == "causal" and family.known and not tied else None
    named = {embedding.parameter, *((head.parameter,) if head else ())}
    beside = tuple(f"{name}." for name in (family.norm, family.head, *family.beside) if name)
    return Anatomy(
        family=family,
        model_type=str(entries.get("model_type", "")),
        blocks=blocks,
        embedding=embedding,
        head=head,
        block_tensors=[found[prefix] for prefix in prefixes],
        other_tensors=other,
        unnamed=[n for n in other if n not in named and not names[n].startswith(beside)],
        dropped=head_name if tied and family.known and head_name in shapes else None,
        task=task,
        prefixes=prefixes,
        names={stored: name for stored, name in names.items() if stored != name},
        config=entries,
    )


def family_of(config: Mapping[str, Any], stored: Collection[str] = ()) -> Family | None:
    """What is known of the family of a model with this `config`: its row, the row of the text model inside it, or what
    can be told of the model that transformers builds; None where that has none by its name.

    stored: names of the stored tensors. Where those of a row are under other names, transformers tells which.
    """
    tensors = len(stored) or 1 << 20
    row = FAMILIES.get(str(config.get("model_type", "")))
    if row is not None and task_of(architecture_of(config)) not in HEADLESS:
        begins = tuple(f"{stack}." for stack in row.stacks)
        if not stored or any(row.module_name(name).startswith(begins) for name in stored):
            return row
        model = built(config, tensors)
        return row if model is None else dataclasses.replace(row, renames=(), naming=naming(model))
    if (model := built(config, tensors)) is None:
        return None
    entries = text_entries(model)
    if entries is not None:
        kind = str(entries.get("model_type", ""))
        row = FAMILIES.get(LIKE.get(kind, kind))
        if row is not None and (family := within(row, model, entries)) is not None:
            return family
    elif row is not None and len(row.stacks) == 1 and (family := within(row, model)) is not None:
        return family
    return described(model, stored, entries)


def _family(config: Mapping[str, Any], stored: Collection[str], source: str) -> Family:
    """The row of a model that is not quantized yet. stored: names of the stored tensors."""
    if config.get("quantization_config") or config.get("whet"):
        raise UsageError(
            "{source} is already quantized ({method}), so its weights are not the original's any more. Give whet the "
            "original (unquantized) checkpoint; it is usually named in the model card as base_model.",
            source=source,
            method=quantized_by(config),
        )
    model_type = str(config.get("model_type", ""))
    family = family_of(config, stored)
    if family is None:
        if (refused := needs_code(config, source)) is not None:
            raise refused
        raise UsageError(
            "{source} is of the family {family!r}, which neither whet nor transformers knows.{near} Families: {known}.",
            source=source,
            family=model_type or Message("(none named)"),
            near=did_you_mean(model_type, FAMILIES) if model_type else "",
            known=", ".join(FAMILIES),
        )
    return family


def _counts(family: Family, config: Mapping[str, Any], source: str) -> list[Any]:
    """How many blocks each stack has by `config`; of a family without a row, whatever stands there."""
    counts: list[Any] = []
    for key in family.count:
        # a config that was made by hand may name the blocks as most others do, and only those of the first stack
        count = config.get(key, counts[0] if counts else config.get("num_hidden_layers"))
        if family.counted and (not isinstance(count, int) or count < 1):
            raise UsageError(
                "{source}: config.json says {key} = {count!r}, not a number of blocks. Download it again.",
                source=source,
                key=key,
                count=count,
            )
        counts.append(count)
    return counts


def _end(config: Mapping[str, Any], counts: list[Any]) -> float:
    """The number of the first block that belongs to no stack: of those that say a token more than the next one, which
    DeepSeek V3 and GLM-4.5 have in their files and transformers does not build."""
    more = config.get("num_nextn_predict_layers")
    return counts[0] if isinstance(more, int) and more > 0 and isinstance(counts[0], int) else math.inf


def _stored_as(names: Mapping[str, str], source: str) -> dict[str, str]:
    """The other way round than `names`, which are the model's by stored tensor."""
    stored_as = {name: stored for stored, name in names.items()}
    if len(stored_as) != len(names):
        twice = next(n for n in names if stored_as[names[n]] != n)
        raise UsageError(
            "{source}: {name} and {other} are the same tensor under two names. The folder is a mix of two downloads; "
            "download it again.",
            source=source,
            name=twice,
            other=stored_as[names[twice]],
        )
    return stored_as


def _prefixes(
    family: Family, counts: list[Any], found: Mapping[str, list[str]], config: Mapping[str, Any], source: str
) -> list[str]:
    """Names of the modules of all blocks, with a final dot, in order. found: stored tensors by such a name."""
    prefixes: list[str] = []
    for stack, key, count in zip(family.stacks, family.count, counts, strict=True):
        mine = {int(prefix[len(stack) + 1 : -1]) for prefix in found if prefix.startswith(f"{stack}.")}
        if not family.counted:
            count = len(mine)
        if not mine or len(mine) != count or max(mine) != count - 1:
            raise UsageError(
                "{source}: config.json says {key} = {count}, the weight files hold {blocks} blocks named {stack}.<n>. "
                "One of the two is from another model; download the folder again.",
                source=source,
                key=key,
                count=count,
                blocks=len(mine),
                stack=stack,
            )
        prefixes += [f"{stack}.{index}." for index in range(count)]
    return prefixes


def _head(family: Family, where: _Stored, name: str) -> Linear:
    """The head of a model that does not tie it, which is stored as `name`."""
    if name not in where.shapes:
        raise UsageError(
            "{source}: tensor {name} is missing, and config.json does not tie it to the embedding. The folder is "
            "incomplete: download it again (or set tie_word_embeddings to true, if the model was trained so).",
            source=where.source,
            name=name,
        )
    return where.table(family.head, "head", "final hidden states")


@dataclass(frozen=True)
class _Stored:
    """Linears by their modules' names, found among stored tensors of `shapes`."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    stored_as: Mapping[str, str]
    source: str

    def has(self, parameter: str) -> bool:
        """Whether the files hold the model's `parameter`."""
        return parameter in self.stored_as

    def matrix(self, parameter: str, dimensions: int = 2) -> tuple[str, tuple[int, ...]]:
        """Stored name and shape of the model's `parameter`."""
        stored = self.stored_as.get(parameter, parameter)
        shape = self.shapes.get(stored)
        if shape is None:
            raise UsageError(
                "{source}: tensor {name} is missing. The folder is incomplete or config.json names another family; "
                "download it again.",
                source=self.source,
                name=stored,
            )
        if len(shape) != dimensions:
            raise UsageError(
                "{source}: tensor {name} has shape {shape} instead of two dimensions. The folder is incomplete or "
                "config.json names another family; download it again.",
                source=self.source,
                name=stored,
                shape=list(shape),
            )
        return stored, shape

    def table(self, module: str, role: str, reads: str) -> Linear:
        """Embedding or head."""
        stored, shape = self.matrix(f"{module}.weight")
        place = View(f"{module}.weight")
        return Linear(stored.removesuffix(".weight"), stored, role, (shape[0], shape[1]), reads, place=place)

    def rows(self, names: list[LinearName], whole: int, what: str) -> list[tuple[int, int]]:
        """Which rows of `whole` each of `names` has."""
        shares = []
        for name in names:
            share = self.config.get(name.share, 1) if name.share else 1
            if not isinstance(share, int) or share < 1:
                raise UsageError(
                    "{source}: config.json says {key} = {value!r}. Download it again.",
                    source=self.source,
                    key=name.share,
                    value=share,
                )
            shares.append(share)
        if whole % sum(shares):
            raise UsageError(
                "{source}: the {rows} rows of {name} are not {shares} equal parts, as config.json says. Weights and "
                "config are of different models; download the folder again.",
                source=self.source,
                rows=whole,
                name=what,
                shares=" + ".join(map(str, shares)),
            )
        unit, start, found = whole // sum(shares), 0, []
        for share in shares:
            found.append((start, start + share * unit))
            start += share * unit
        return found


def _block(family: Family, prefix: str, where: _Stored, without: tuple[str, ...]) -> list[Linear]:
    """The linears of the block whose module is `prefix`. without: modules of it that it does not have."""
    names = [name for name in family.linears if name.path.partition(".")[0] not in without]
    if family.alternatives:
        # without a row, a block may have no linear at all, which is the last kind then
        otherwise = family.alternatives[0] if family.counted else ()
        names += next((kind for kind in family.alternatives if _present(kind[0], prefix, where)), otherwise)
    found: list[Linear] = []
    for name in names:
        if name.held:
            found += _experts(name, [n for n in names if n.held == name.held], prefix, where)
            continue
        parameter = f"{prefix}{name.path}.weight"
        stored, shape = where.matrix(parameter)
        columns, rows = shape if name.transposed else shape[::-1]
        together = [n for n in names if n.path == name.path]
        address, part = stored.removesuffix(".weight"), None
        if len(together) > 1:
            part = where.rows(together, rows, stored)[together.index(name)]
            address, rows = f"{address}.{name.role}", part[1] - part[0]
        place = View(parameter, part, None, name.transposed)
        found.append(
            Linear(address, stored, name.role, (rows, columns), name.reads, part, None, name.transposed, place)
        )
    return found


def _present(name: LinearName, prefix: str, where: _Stored) -> bool:
    return where.has(f"{prefix}{name.path.format(0)}.weight") or (bool(name.held) and where.has(prefix + name.held))


def _experts(name: LinearName, together: list[LinearName], prefix: str, where: _Stored) -> list[Linear]:
    """One linear for every expert, stored by itself or in the stack that the model has."""
    place = together.index(name)
    found: list[Linear] = []
    if where.has(prefix + name.held):
        stored, (count, *sizes) = where.matrix(prefix + name.held, 3)
        columns, whole = sizes if name.transposed else sizes[::-1]
        start, end = where.rows(together, whole, stored)[place]
        rows = (start, end) if len(together) > 1 else None
        for expert in range(count):
            address, reads = prefix + name.path.format(expert), name.reads.format(expert)
            held = View(prefix + name.held, rows, expert, name.transposed)
            shape = (end - start, columns)
            found.append(Linear(address, stored, name.role, shape, reads, rows, expert, name.transposed, held))
        return found
    expert = 0
    while expert == 0 or where.has(f"{prefix}{name.path.format(expert)}.weight"):
        stored, (height, columns) = where.matrix(f"{prefix}{name.path.format(expert)}.weight")
        rows = (place * height, (place + 1) * height) if len(together) > 1 else None
        address, reads = stored.removesuffix(".weight"), name.reads.format(expert)
        held = View(prefix + name.held, rows, expert)
        found.append(Linear(address, stored, name.role, (height, columns), reads, place=held))
        expert += 1
    return found
