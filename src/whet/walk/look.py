"""Families without a row in the table: their parts are found by running the model a little, and that is proved.

A few tokens go through the first blocks, as many as there are kinds of. What is called after the last block is the
final norm; linears that are given the same tensor read the same input; matrices of a stack that tokens are multiplied
with are experts, and a linear whose turned outputs send tokens to other experts is a router; the head's logits over a
plain product tell whether they are scaled. The proof is that blocks run one at a time, as every walk runs them, give
what the whole model gives: where they do not, or where something else is met, the model is left without a row and it is
said why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import (
    Anatomy,
    Family,
    LinearName,
    anatomy,
    conversion,
    kinds_of,
    linear_paths,
    plain_name,
    stacks,
    why_not_packed,
)
from whet.checkpoint import Checkpoint, empty_model
from whet.errors import WhetError
from whet.messages import Message
from whet.walk.experts import Seen, expert_names, routers, watched
from whet.walk.skeleton import Call, Skeleton, hooked

_TOKENS = 12
_CLOSE = 1e-4  # relative, of float32 arithmetic in another order
_BOUND = "cap"  # in the names of entries of configs with c where logits z become c tanh(z / c)
_SAID = 200  # letters of another's error


class _Stop(Exception):
    """Enough was seen."""


class _Unfound(Exception):
    """What is met is not what a walk can follow."""

    def __init__(self, why: Message) -> None:
        super().__init__(str(why))
        self.why = why


def look(checkpoint: Checkpoint, parts: Anatomy) -> Family | Message:
    """The family of a model of which only modules and linears are known, so that walks can follow it; or why not.

    Memory is a block, the embedding and the head.
    """
    try:
        with torch.no_grad():
            return _Look(checkpoint, parts).family()
    except _Unfound as unfound:
        return unfound.why
    except WhetError:
        raise
    except Exception as error:  # whatever the code of an architecture that nobody here knows does
        said = f"{type(error).__name__}: {error}"
        return Message("running it failed ({error})", error=said[:_SAID])


class _Look:
    def __init__(self, checkpoint: Checkpoint, parts: Anatomy) -> None:
        self.checkpoint, self.parts = checkpoint, parts
        if parts.task == "seq2seq":
            raise _Unfound(Message("it has an encoder and a decoder"))
        named = [name for name in map(parts.name, parts.other_tensors) if parts.family.own_name(name) is not None]
        # files may hold more than the model has, such as blocks that say a token more
        modules = {name for name, _ in empty_model(checkpoint, torch.float32).named_modules()}
        modules &= {name.rpartition(".")[0] for name in named}
        self.beside = tuple(sorted(modules - {parts.family.embedding, parts.family.head}))
        self.table = checkpoint.read(parts.embedding.parameter)
        self.tokens = torch.arange(3, 3 + _TOKENS)[None] % parts.embedding.shape[0]

    def family(self) -> Family:
        """What was found, proved."""
        family = dataclasses.replace(self.parts.family, beside=self.beside, known=True, found=True)
        family = self._with_linears(family)
        plain = self._skeleton(family)
        family = dataclasses.replace(family, tupled=self._tupled(plain))
        family = dataclasses.replace(family, norm=self._norm(self._skeleton(family)))
        family = dataclasses.replace(family, beside=tuple(name for name in self.beside if name != family.norm))
        skeleton = self._skeleton(family)
        with self._embedded(skeleton):
            hidden, calls = skeleton.enter(self.tokens)
        last = self._kinds(skeleton.anatomy)
        names, hidden = self._stream(skeleton, hidden, calls, last)
        if not _alike(hidden, self._whole(plain, last)):
            raise _Unfound(Message("its blocks run one at a time give something else than the whole model"))
        paths = [[path for path in block if path in names] for block in self.paths]
        family = dataclasses.replace(family, alternatives=kinds_of(paths, names))
        if self.parts.task != "causal":
            return family
        return self._with_head(family, skeleton, skeleton.load_norm()(hidden))

    def _with_linears(self, family: Family) -> Family:
        """The family with every linear that its blocks have, experts too, of which is not known yet what they read.

        `paths` are then those of each block, and `names` what is known of each."""
        modules = Skeleton(self.checkpoint, self.parts, "cpu")
        self.stored = conversion(modules.model, self.checkpoint.shapes)
        there = {family.module_name(name) for name in self.checkpoint.shapes}
        self.names: dict[str, LinearName] = {}
        self.paths: list[list[str]] = []
        for block, prefix in zip(modules.blocks, self.parts.prefixes, strict=True):
            named = [plain_name(path) for path in linear_paths(block) if f"{prefix}{path}.weight" in there]
            named += expert_names(list(stacks(block)), prefix, there, self.stored.experts)
            self.names |= {name.path: name for name in named}
            self.paths.append([name.path for name in named])
        (stack,) = family.stacks
        packed = why_not_packed(modules.model, modules.model.get_submodule(stack), self.stored.experts)  # type: ignore[arg-type]
        family = dataclasses.replace(family, packed=packed)
        return dataclasses.replace(family, alternatives=kinds_of(self.paths, self.names))

    def _skeleton(self, family: Family) -> Skeleton:
        parts = anatomy(self.checkpoint.config, self.checkpoint.shapes, str(self.checkpoint.path), family)
        skeleton = Skeleton(self.checkpoint, parts, "cpu")
        moved = {view.parameter for view in parts.moved().values()}
        wanted = {name for name, _ in skeleton.model.named_parameters()}
        stored = {parts.name(name) for name in self.checkpoint.shapes}
        if lacking := sorted(wanted - stored - moved - {f"{family.head}.weight"}):
            source = next((name for name, target in self.stored.changed.items() if target == lacking[0]), "")
            if source:
                raise _Unfound(Message("transformers computes {name} from {other}", name=lacking[0], other=source))
            raise _Unfound(Message("its files have no {name}", name=lacking[0]))
        return skeleton

    @contextlib.contextmanager
    def _embedded(self, skeleton: Skeleton) -> Iterator[None]:
        with skeleton.embedding(self.table):
            skeleton.load_beside(*self.beside)
            yield

    def _tupled(self, skeleton: Skeleton) -> int:
        """How many values blocks give in a tuple, of which hidden states are the first; 0 where they give none."""
        given: list[Call] = []

        def take(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given.append((args, kwargs))
            raise _Stop

        with self._embedded(skeleton):
            handle = skeleton.blocks[0].register_forward_pre_hook(take, with_kwargs=True)
            with hooked([handle]), contextlib.suppress(_Stop):
                skeleton.run_whole(self.tokens)
        if not given or not given[0][0] or not isinstance(given[0][0][0], Tensor):
            raise _Unfound(Message("its blocks are not given hidden states first"))
        (hidden, *args), kwargs = given[0]
        if hidden.shape[:2] != self.tokens.shape:
            raise _Unfound(Message("its hidden states are not one a token"))
        out = skeleton.returned(skeleton.load_block(0), hidden, (tuple(args), kwargs), torch.float32)
        skeleton.free_block(0)
        first = out[0] if isinstance(out, tuple) else out
        if not isinstance(first, Tensor) or first.shape != hidden.shape:
            raise _Unfound(Message("its blocks do not give hidden states first"))
        return len(out) if isinstance(out, tuple) else 0

    def _norm(self, skeleton: Skeleton) -> str:
        """The one module that is called after the last block; none where nothing is."""
        passed, called = [0], list[str]()

        def count(*_: Any) -> None:
            passed[0] += 1

        handles = [block.register_forward_hook(count) for block in skeleton.blocks]
        inside = {id(module) for block in skeleton.blocks for module in block.modules()}
        for name, module in skeleton.model.named_modules():
            if name == self.parts.family.head or id(module) in inside or any(True for _ in module.children()):
                continue
            if isinstance(module, nn.Dropout | nn.Identity):
                continue
            handles.append(
                module.register_forward_pre_hook(
                    lambda *_, name=name: called.append(name) if passed[0] >= len(skeleton.blocks) else None
                )
            )
        with self._embedded(skeleton), hooked(handles):
            skeleton.enter(self.tokens)
        if self.parts.task != "causal":
            return ""  # whatever follows the blocks is run with what the model ends in
        if len(called) > 1:
            raise _Unfound(Message("several modules follow its blocks ({names})", names=", ".join(called)))
        return called[0] if called else ""

    def _kinds(self, parts: Anatomy) -> int:
        """How many of the first blocks there are until every kind was met, and one more."""
        kinds = [tuple(sorted({linear.role for linear in block})) for block in parts.blocks]
        return min(len(kinds), max(kinds.index(kind) for kind in set(kinds)) + 2)

    def _whole(self, skeleton: Skeleton, count: int) -> Tensor:
        """Hidden states after `count` blocks as the model itself runs them, each loaded when its turn comes."""
        found: list[Tensor] = []

        def load(index: int) -> Any:
            return lambda *_: skeleton.load_block(index) and None

        def free(index: int) -> Any:
            def after(_module: nn.Module, _args: Any, out: Any) -> None:
                skeleton.free_block(index)
                if index == count - 1:
                    found.append(out[0] if isinstance(out, tuple) else out)
                    raise _Stop

            return after

        handles = [
            handle
            for index, block in enumerate(skeleton.blocks[:count])
            for handle in (block.register_forward_pre_hook(load(index)), block.register_forward_hook(free(index)))
        ]
        with self._embedded(skeleton), hooked(handles), contextlib.suppress(_Stop):
            skeleton.run_whole(self.tokens)
        return found[0]

    def _stream(
        self, skeleton: Skeleton, hidden: Tensor, calls: list[Call], count: int
    ) -> tuple[dict[str, LinearName], Tensor]:
        """What is rounded, by its path in a block, with what it reads, and hidden states after `count` blocks run one
        at a time. Linears that nobody hears, and those that decide on experts, are left out."""
        found: dict[str, LinearName] = {}
        out: set[str] = set()
        for index in range(count):
            block, given, call = skeleton.load_block(index), hidden, calls[index]
            names = [self.names[path] for path in self.paths[index]]
            with watched(block, names) as seen:
                hidden = skeleton.run(block, given, call, torch.float32)
            if twice := [path for path, times in seen.times.items() if times > 1]:
                raise _Unfound(Message("{name} is called several times in a block", name=twice[0]))
            tokens = math.prod(given.shape[:2])
            sizes = {path: x.numel() // x.shape[-1] for path, x in seen.inputs}
            if listed := [
                n.path for n in names if not n.held and _in_list(block, n.path) and sizes.get(n.path) != tokens
            ]:
                raise _Unfound(Message("it has experts in a list of modules ({name})", name=listed[0]))
            for name in seen.named(names):
                if found.setdefault(name.path, name) != name:
                    raise _Unfound(Message("its blocks do not all read alike"))
            if held := sorted({n.held for n in names if n.held} - {n.held for n in found.values()}):
                parameter = skeleton.anatomy.block_prefix(index) + held[0]
                if parameter in self.stored.experts:
                    raise _Unfound(Message("its experts are multiplied out of sight ({name})", name=held[0]))

            again = functools.partial(_seen, skeleton, block, names, given, call)
            out |= routers(block, names, seen, again)
            skeleton.free_block(index)
        return {path: name for path, name in found.items() if path not in out}, hidden

    def _with_head(self, family: Family, skeleton: Skeleton, final: Tensor) -> Family:
        """The family with what becomes of logits: nothing, a bias, a factor, or a bound."""
        head = skeleton.anatomy.head
        table = (self.table if head is None else self.checkpoint.read(head.parameter)).float()
        logits, plain = skeleton.outputs(self.tokens, final, table), final @ table.t()
        bias = next((n for n in self.checkpoint.shapes if family.module_name(n) == f"{family.head}.bias"), "")
        if bias:
            family, plain = dataclasses.replace(family, bias=bias), plain + skeleton.read(bias)
        factor = float((logits * plain).sum() / plain.square().sum())
        if _alike(logits, factor * plain) and (not bias or abs(factor - 1) < _CLOSE):
            return family if abs(factor - 1) < _CLOSE else dataclasses.replace(family, logit_factor=factor)
        for entry, bound in vars(skeleton.model.config.get_text_config()).items():
            if _BOUND in entry and isinstance(bound, float) and _alike(logits, torch.tanh(plain / bound) * bound):
                return dataclasses.replace(family, softcap=entry)
        raise _Unfound(Message("its logits are no multiple of what its head's table gives"))


def _seen(skeleton: Skeleton, block: nn.Module, names: Sequence[LinearName], hidden: Tensor, call: Call) -> Seen:
    """What is seen of a block that runs once more."""
    with watched(block, names) as seen:
        skeleton.run(block, hidden, call, torch.float32)
    return seen


def _in_list(block: nn.Module, path: str) -> bool:
    """Whether a module of a block is in a list of modules, as experts are in other code than transformers'."""
    parents = path.split(".")
    return any(isinstance(block.get_submodule(".".join(parents[:n])), nn.ModuleList) for n in range(1, len(parents)))


def _alike(mine: Tensor, theirs: Tensor) -> bool:
    return bool((mine - theirs).abs().max() <= _CLOSE * theirs.abs().max())
