"""Families without a row in the table: their parts are found by running the model a little, and that is proved.

A few tokens go through the first blocks, as many as there are kinds of. What is called after the last block is the
final norm; linears that are given the same tensor read the same input; the head's logits over a plain product tell
whether they are scaled. The proof is that blocks run one at a time, as every walk runs them, give what the whole model
gives: where they do not, or where something else is met, the model is left without a row and it is said why.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Family, Linear, anatomy, kinds_of
from whet.checkpoint import Checkpoint
from whet.errors import WhetError
from whet.messages import Message
from whet.walk.skeleton import Call, Skeleton, hooked

_TOKENS = 12
_CLOSE = 1e-4  # relative, of float32 arithmetic in another order
_BOUND = "final_logit_softcapping"  # entry of configs with c where logits z become c tanh(z / c)
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
        modules = {name.rpartition(".")[0] for name in named}
        self.beside = tuple(sorted(modules - {parts.family.embedding, parts.family.head}))
        self.table = checkpoint.read(parts.embedding.parameter)
        self.tokens = torch.arange(3, 3 + _TOKENS)[None] % parts.embedding.shape[0]

    def family(self) -> Family:
        """What was found, proved."""
        family = dataclasses.replace(self.parts.family, beside=self.beside, known=True, found=True)
        plain = self._skeleton(family)
        family = dataclasses.replace(family, tupled=self._tupled(plain))
        family = dataclasses.replace(family, norm=self._norm(self._skeleton(family)))
        family = dataclasses.replace(family, beside=tuple(name for name in self.beside if name != family.norm))
        skeleton = self._skeleton(family)
        with self._embedded(skeleton):
            hidden, calls = skeleton.enter(self.tokens)
        last = self._kinds()
        reads, hidden = self._stream(skeleton, hidden, calls, last)
        if not _alike(hidden, self._whole(plain, last)):
            raise _Unfound(Message("its blocks run one at a time give something else than the whole model"))
        family = _with_reads(family, self.parts.blocks, reads)
        if self.parts.task != "causal":
            return family
        return self._with_head(family, skeleton, skeleton.load_norm()(hidden))

    def _skeleton(self, family: Family) -> Skeleton:
        parts = anatomy(self.checkpoint.config, self.checkpoint.shapes, str(self.checkpoint.path), family)
        skeleton = Skeleton(self.checkpoint, parts, "cpu")
        if any(_stacked(block) for block in skeleton.blocks):
            raise _Unfound(Message("it has experts"))
        wanted = {name for name, _ in skeleton.model.named_parameters()}
        stored = {parts.name(name) for name in self.checkpoint.shapes}
        if lacking := sorted(wanted - stored - {f"{family.head}.weight"}):
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

    def _kinds(self) -> int:
        """How many of the first blocks there are until every kind was met, and one more."""
        kinds = [tuple(sorted(linear.role for linear in block)) for block in self.parts.blocks]
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
    ) -> tuple[dict[str, str], Tensor]:
        """What each linear reads, by its path in a block, and hidden states after `count` blocks run one at a time."""
        reads: dict[str, str] = {}
        for index in range(count):
            block, seen = skeleton.load_block(index), list[tuple[str, Tensor]]()
            prefix = skeleton.anatomy.block_prefix(index)
            paths = [linear.held.parameter.removeprefix(prefix).removesuffix(".weight") for linear in
                     skeleton.anatomy.blocks[index]]  # fmt: skip
            handles = [
                block.get_submodule(path).register_forward_pre_hook(
                    lambda _m, args, path=path, seen=seen: seen.append((path, args[0]))
                )
                for path in paths
            ]
            with hooked(handles):
                hidden = skeleton.run(block, hidden, calls[index], torch.float32)
            for path, given in seen:
                first = next(other for other, tensor in seen if tensor is given)
                if reads.setdefault(path, f"input of {first}") != f"input of {first}":
                    raise _Unfound(Message("its blocks do not all read alike"))
            if twice := [path for path in paths if sum(path == other for other, _ in seen) > 1]:
                raise _Unfound(Message("{name} is called several times in a block", name=twice[0]))
            skeleton.free_block(index)
        return reads, hidden

    def _with_head(self, family: Family, skeleton: Skeleton, final: Tensor) -> Family:
        """The family with what becomes of logits: nothing, a factor, or a bound."""
        head = skeleton.anatomy.head
        table = (self.table if head is None else self.checkpoint.read(head.parameter)).float()
        logits, plain = skeleton.outputs(self.tokens, final, table), final @ table.t()
        factor = float((logits * plain).sum() / plain.square().sum())
        if _alike(logits, factor * plain):
            return family if abs(factor - 1) < _CLOSE else dataclasses.replace(family, logit_factor=factor)
        bound = getattr(skeleton.model.config.get_text_config(), _BOUND, None)
        if bound and _alike(logits, torch.tanh(plain / bound) * bound):
            return dataclasses.replace(family, softcap=_BOUND)
        raise _Unfound(Message("its logits are no multiple of what its head's table gives"))


def _stacked(block: nn.Module) -> bool:
    """Whether a block has linears of experts, in a list or stacked in a parameter."""
    for module in block.modules():
        if isinstance(module, nn.ModuleList) and any(isinstance(inner, nn.Linear) for inner in module.modules()):
            return True
        several = (p for p in module.parameters(recurse=False) if p.dim() > 2 and min(p.shape) > 1)
        if not isinstance(module, nn.Conv1d | nn.Conv2d) and any(True for _ in several):
            return True
    return False


def _alike(mine: Tensor, theirs: Tensor) -> bool:
    return bool((mine - theirs).abs().max() <= _CLOSE * theirs.abs().max())


def _with_reads(family: Family, blocks: Sequence[Sequence[Linear]], reads: dict[str, str]) -> Family:
    """The family with what each linear reads. Those that are never called as modules, whose inputs nobody hears, are
    left out."""
    paths = {linear.role: linear.path for kind in family.alternatives for linear in kind}
    kinds = kinds_of([[path for linear in block if (path := paths[linear.role]) in reads] for block in blocks])
    named = [tuple(dataclasses.replace(name, reads=reads[name.path]) for name in kind) for kind in kinds]
    return dataclasses.replace(family, alternatives=tuple(named))
