"""A model on the meta device whose parts are brought in one at a time.

transformers builds the arguments of every block (masks, rotary tables) in its own forward; they are captured once per
batch shape with the blocks stubbed out, so that blocks can be run alone afterwards with exactly what they would have
been given. All computing is in float32, whatever the weights are stored in.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from whet.anatomy import Anatomy, Linear
from whet.checkpoint import Checkpoint, answer_of, empty_model
from whet.checkpoint.beside_whet import compute_buffers

Call = tuple[tuple[Any, ...], dict[str, Any]]


def give_back() -> None:
    """Hands freed memory back to the system, where the C library is glibc, which else keeps what lies between tensors
    that live on: 2 GB after a few blocks of a model of 1.1 B parameters walked in reverse."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Hooks that are there until the end of the block."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def placed(
    linears: Sequence[Linear], weights: Mapping[str, Tensor], block: nn.Module, prefix: str
) -> dict[str, Tensor]:
    """Parameters of `block` by their names in it, with `weights` (by address, `[out, in]`) where its `linears` are.

    What else is in a parameter stays. Gradients flow into the weights.
    """
    parameters: dict[str, Tensor] = {}
    for linear in linears:
        if linear.address in weights:
            name = linear.held.parameter.removeprefix(prefix)
            if name not in parameters:
                parameters[name] = block.get_parameter(name).detach().clone()
            linear.held.of(parameters[name]).copy_(weights[linear.address])
    return parameters


class Skeleton:
    """The model of `checkpoint` without its weights; `device` is where parts are brought to."""

    def __init__(self, checkpoint: Checkpoint, anatomy: Anatomy, device: str) -> None:
        self.checkpoint, self.anatomy, self.device = checkpoint, anatomy, device
        self.moved = anatomy.moved()
        self.starts = [i for i, prefix in enumerate(anatomy.prefixes) if prefix.endswith(".0.")]
        more = anatomy.family.returns - 1
        self.handed = tuple(torch.empty(0) for _ in range(more)) if more else None
        self.entered: dict[int, Tensor] = {}
        self.model = empty_model(checkpoint, torch.float32).eval()
        if anatomy.family.found:
            # experts one after another, of which every product is seen; a kernel for all at once hides them
            self.model.set_experts_implementation("eager")
        self.model.requires_grad_(False)
        self.blocks = [self.model.get_submodule(prefix.removesuffix(".")) for prefix in anatomy.prefixes]
        compute_buffers(self.model, device)

    def load_block(self, index: int) -> nn.Module:
        """Block `index` with the original's weights, in float32 on the device; experts are stacked as the model is."""
        prefix = self.anatomy.block_prefix(index)
        block = self.blocks[index]
        moved = {x.parameter: x.held for x in self.anatomy.blocks[index] if x.address in self.moved}
        state: dict[str, Tensor] = {}
        for stored in self.anatomy.block_tensors[index]:
            if stored not in moved:
                state[self.anatomy.name(stored).removeprefix(prefix)] = self.read(stored)
                continue
            name = moved[stored].parameter.removeprefix(prefix)
            if name not in state:
                state[name] = torch.empty(block.get_parameter(name).shape, dtype=torch.float32, device=self.device)
            moved[stored].of(state[name]).copy_(self.read(stored))
        block.load_state_dict(state, strict=True, assign=True)
        del state
        give_back()
        return block

    def free_block(self, index: int) -> None:
        """Give the memory of block `index` back."""
        _emptied(self.blocks[index])
        give_back()

    def load_norm(self) -> nn.Module:
        """The norm after the last block, and the factor of logits where the model has one."""
        family = self.anatomy.family
        name, factor = family.norm, family.logit_factor
        if family.logit_scale:
            entry, power = family.logit_scale
            factor *= float(getattr(self.model.config.get_text_config(), entry)) ** power
        if name:
            self.load_beside(name)
        norm = self.model.get_submodule(name) if name else nn.Identity()
        return norm if factor == 1.0 else nn.Sequential(norm, _Times(factor))

    def _given(self, hidden: Tensor) -> Any:
        """`hidden` as a block gives it."""
        if self.handed is not None:
            return (hidden, *self.handed)
        tupled = self.anatomy.family.tupled
        return (hidden, *[None] * (tupled - 1)) if tupled else hidden

    def load_beside(self, *modules: str) -> None:
        """Bring in everything stored for `modules` outside the blocks, but for the embedding and a head of its own."""
        tables = {x.parameter for x in (self.anatomy.embedding, self.anatomy.head) if x is not None}
        for stored in self.anatomy.other_tensors:
            name = self.anatomy.name(stored)
            if (
                stored in tables
                or stored == self.anatomy.dropped
                or not name.startswith(tuple(f"{module}." for module in modules))
            ):
                continue
            owner, _, leaf = name.rpartition(".")
            try:
                module = self.model.get_submodule(owner)
            except AttributeError:  # another head's weights, which this architecture does not have
                continue
            if leaf in module._parameters:
                module._parameters[leaf] = nn.Parameter(self.read(stored), requires_grad=False)

    @property
    def bound(self) -> float | None:
        """What the model keeps its logits below, smoothly, if it does."""
        softcap = self.anatomy.family.softcap
        return getattr(self.model.config.get_text_config(), softcap, None) or None if softcap else None

    @functools.cached_property
    def bias(self) -> Tensor | None:
        """What the head adds to its products, `[vocabulary]`, if it does."""
        family = self.anatomy.family
        return self.read(family.bias) if family.bias else None

    def cap(self, logits: Tensor) -> Tensor:
        """Logits as the model gives them, from the products of final states and the head's table."""
        if self.bias is not None:
            logits = logits + self.bias
        return logits if self.bound is None else torch.tanh(logits / self.bound) * self.bound

    def next_logits(self, hidden: Tensor, table: Tensor) -> Tensor:
        """What a head of `table [vocabulary, hidden]` makes of final states `[L, hidden]`: logits `[1, L - 1,
        vocabulary]` of every position with a next one."""
        return self.cap(hidden[:-1] @ table.t())[None]

    def scale(self) -> float:
        """What the embedding multiplies its rows by."""
        with self.embedding(torch.ones(1, 1)), torch.no_grad():
            module = self.model.get_submodule(self.anatomy.family.embedding)
            return float(module(torch.zeros(1, 1, dtype=torch.int64, device=self.device)).flatten()[0])

    def read(self, name: str) -> Tensor:
        """A stored tensor in float32 on the device, in memory of its own."""
        return self.checkpoint.read(name).to(self.device, torch.float32)

    @contextlib.contextmanager
    def embedding(self, table: Tensor) -> Iterator[None]:
        """The embedding holds `table [vocabulary, hidden]` in any type; what comes out of it is float32.

        Only the rows that are looked up are turned into float32, before whatever the embedding does to them (Gemma
        multiplies).
        """
        modules = [self.model.get_submodule(n) for n in (self.anatomy.family.embedding, *self.anatomy.family.shared)]
        table = table.to(self.device)

        def look_up(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            rows, places = args[0].unique(return_inverse=True)
            module.weight = nn.Parameter(table[rows].float(), requires_grad=False)  # type: ignore[assignment]
            return (places,)

        def whole(module: nn.Module, *_: Any) -> None:
            # larger models read a row of it themselves, beside looking tokens up
            module.weight = nn.Parameter(table, requires_grad=False)  # type: ignore[assignment]

        empty = [(module.weight, module.padding_idx) for module in modules]
        # some families ask the weight where it is before they look anything up
        there = torch.empty((), device=self.device).expand(table.shape)
        for module in modules:
            module.weight = nn.Parameter(there, requires_grad=False)  # type: ignore[assignment]
            module.padding_idx = None  # type: ignore[assignment]  # it is no row of the few that are looked up
            whole(module)
        hooks = [
            hook
            for module in modules
            for hook in (module.register_forward_pre_hook(look_up), module.register_forward_hook(whole))
        ]
        try:
            with hooked(hooks):
                yield
        finally:
            for module, before in zip(modules, empty, strict=True):
                module.weight, module.padding_idx = before  # type: ignore[assignment]

    def enter(self, tokens: Tensor) -> tuple[Tensor, list[Call]]:
        """What reaches the first block for `tokens [b, L]`, and the other arguments of every block.

        Of several stacks, every one is given `tokens`; `stack` tells what reaches the later ones.
        """
        calls: list[Call] = [((), {})] * len(self.blocks)
        entered: dict[int, Tensor] = {}

        def record(index: int, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if index in self.starts:
                entered[index] = hidden
            calls[index] = (args, kwargs)
            # what the first block of a stack makes for the others stands empty until it has run
            return self._given(hidden)

        family = self.anatomy.family
        self.load_beside(*family.beside, *self._norms())
        norms = [self.model.get_submodule(name) for name in self._norms()]

        def normed(index: int, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # what also stands before the first block does its work there
            return hidden if entered else type(norms[index]).forward(norms[index], hidden, *args, **kwargs)

        with torch.no_grad(), _stub([*self.blocks], record), _stub(norms, normed):
            self.run_whole(tokens)
        first = entered.pop(0)
        self.entered = entered
        return first, calls

    def run(
        self,
        module: nn.Module,
        hidden: Tensor,
        call: Call,
        compute: torch.dtype,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """What a block gives for `hidden [b, L, hidden]`: the first of what is `returned`."""
        out = self.returned(module, hidden, call, compute, parameters)
        return out if isinstance(out, Tensor) else out[0]

    def returned(
        self,
        module: nn.Module,
        hidden: Tensor,
        call: Call,
        compute: torch.dtype,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """All a block returns for `hidden [b, L, hidden]`, with its products in the type `compute`, and with other
        `parameters` in place of its own."""
        args, kwargs = call
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=compute, enabled=compute != torch.float32):
            return functional_call(module, dict(parameters or {}), (hidden, *args), kwargs)

    def _norms(self) -> list[str]:
        """Names of the norms that end the stacks."""
        family = self.anatomy.family
        if len(family.stacks) == 1:
            return [family.norm] if family.norm else []
        return [f"{stack.rpartition('.')[0]}.{family.norm.rpartition('.')[2]}" for stack in family.stacks]

    def stack_norm(self, index: int) -> nn.Module:
        """The norm after the stack that ends right before block `index`, with its weights."""
        name = self._norms()[self.starts.index(index) - 1]
        self.load_beside(name)
        return self.model.get_submodule(name)

    def run_whole(self, tokens: Tensor) -> Any:
        """The whole model on `tokens`; an encoder and a decoder are both given them."""
        tokens = tokens.to(self.device)
        if len(self.starts) > 1:
            return self.model(input_ids=tokens, decoder_input_ids=tokens, use_cache=False)
        body = self.model.base_model
        if body is self.model and self.anatomy.family.place:  # a larger model whose head is in its text model
            body = self.model.get_submodule(self.anatomy.family.place).base_model
        with _here(body, self.device):
            return body(input_ids=tokens, use_cache=False)

    def _class_head(self) -> list[str]:
        """Modules of a head that gives classes, which families do not name; nothing of models that say tokens."""
        if self.anatomy.task not in ("classification", "tokens", "spans"):
            return []
        return sorted({self.anatomy.name(stored).rpartition(".")[0] for stored in self.anatomy.unnamed})

    def outputs(self, tokens: Tensor, hidden: Tensor, table: Tensor | None = None) -> Tensor:
        """What the model makes of `hidden [b, L, hidden]` after its last block and norm: logits of every position or
        text, or as `answer_of`.

        For models that end in more than a table. table: the lighter embedding, where the head is tied to it.
        """
        family = self.anatomy.family
        self.load_beside(*family.beside, family.head, *self._class_head())
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        tied = head is not None and head.weight.is_meta
        if tied:
            table = self.checkpoint.read(self.anatomy.embedding.parameter) if table is None else table
            head.weight = nn.Parameter(table.to(self.device, torch.float32), requires_grad=False)
            if getattr(head, "bias", None) is not None and head.bias.is_meta:
                self.model.tie_weights()
                head.weight = nn.Parameter(table.to(self.device, torch.float32), requires_grad=False)
        given = self._given(hidden)
        embeddings = [self.model.get_submodule(name) for name in (family.embedding, *family.shared)]
        widths = [module.weight.shape[1] for module in embeddings]
        norms = [self.model.get_submodule(name) for name in self._norms()]
        tokens = tokens.to(self.device)
        several = {"decoder_input_ids": tokens} if len(self.starts) > 1 else {}
        with contextlib.ExitStack() as stubs:
            stubs.enter_context(torch.no_grad())
            stubs.enter_context(_stub([*self.blocks], lambda _i, _h, _a, _k: given))
            stubs.enter_context(_blank(embeddings, self.device))
            stubs.enter_context(_stub(embeddings, lambda i, t, _a, _k: hidden.new_zeros(*t.shape, widths[i])))
            stubs.enter_context(_stub(norms, lambda _i, x, _a, _k: x))
            stubs.enter_context(_here(self.model.base_model, self.device))
            out = answer_of(self.model(input_ids=tokens, **several))
        if tied:
            head.weight = nn.Parameter(head.weight.to("meta"), requires_grad=False)
        return out


class _Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _emptied(whole: nn.Module) -> None:
    """Give the memory of all parameters back; buffers, which no file has, stay."""
    for module in whole.modules():
        for name, value in module._parameters.items():
            if value is not None and not value.is_meta:
                module._parameters[name] = nn.Parameter(value.to("meta"), requires_grad=False)


@contextlib.contextmanager
def _here(model: nn.Module, device: str) -> Iterator[None]:
    """`model` is on `device` to whoever asks its first parameter, as larger models do before they hand tokens on."""
    name, first = next(model.named_parameters())
    owner, leaf = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
    if first.is_meta:
        zeros = torch.zeros((1,) * first.dim(), device=device).expand(first.shape)
        owner._parameters[leaf] = nn.Parameter(zeros, requires_grad=False)
    try:
        yield
    finally:
        if first.is_meta:
            owner._parameters[leaf] = first


@contextlib.contextmanager
def _blank(embeddings: list[nn.Module], device: str) -> Iterator[None]:
    """Embeddings have zeros for rows, which take no memory: larger models read one of them beside looking tokens up."""
    before = [module.weight for module in embeddings]
    for module, weight in zip(embeddings, before, strict=True):
        zeros = torch.zeros(1, 1, device=device).expand(weight.shape)  # type: ignore[arg-type]
        module.weight = nn.Parameter(zeros, requires_grad=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, weight in zip(embeddings, before, strict=True):
            module.weight = weight


@contextlib.contextmanager
def _stub(modules: list[nn.Module], replacement: Callable[..., Any]) -> Iterator[None]:
    for i, module in enumerate(modules):
        module.forward = lambda hidden, *a, _i=i, **k: replacement(_i, hidden, a, k)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward
