"""What a row of the table of families says: the parts of a model by name, its task, and where factors fold in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from whet.messages import Message

# What a model answers, by how its architecture's name ends.
TASKS = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tokens",
    "ForConditionalGeneration": "seq2seq",
    "ForQuestionAnswering": "spans",
    "Model": "states",
}
# The automatic class of transformers that builds a model for a task.
AUTO = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "spans": "AutoModelForQuestionAnswering",
    "states": "AutoModel",
}
# Tasks of models that end in another head than their family's rows name, or in none.
HEADLESS = ("spans", "states")


_HEAD = "lm_head"  # of the text models that are in larger ones


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first architecture that `config` names, or an empty word."""
    said = config.get("architectures")
    return said[0] if isinstance(said, list) and said and isinstance(said[0], str) else ""


def task_of(*architectures: str) -> str:
    """What the first of `architectures` that tells answers; `causal` if none does."""
    return next((task for name in architectures for ending, task in TASKS.items() if name.endswith(ending)), "causal")


def moved(name: str, lead: str, to: str) -> str:
    """`name` with `to` for its first part `lead`; as it is where it begins otherwise."""
    if not lead:
        return f"{to}.{name}" if to else name
    if not name.startswith(f"{lead}."):
        return name
    rest = name.removeprefix(f"{lead}.")
    return f"{to}.{rest}" if to else rest


@dataclass(frozen=True)
class LinearName:
    """A linear of a block: its module `path` inside the block, its `role`, and the input it `reads`.

    Linears of a block with the same `reads` see the same tensor, so they share one second moment and are solved
    together. Linears of one `path` are rows of one tensor, in this order, as many as the config's entry `share` says
    (in proportion; all alike without one). transposed: stored `[in, out]`.
    In `path` and `reads`, `{}` is the number of an expert. `held` is then the parameter `[experts, …]` of the block
    that transformers stacks them into; linears of one `held` are rows there, in this order.
    """

    path: str
    role: str
    reads: str
    share: str = ""
    transposed: bool = False
    held: str = ""


@dataclass(frozen=True)
class Fold:
    """Where a factor for each channel of an input folds in exactly: what gives the channels is divided by it, and every
    linear that reads one of `reads` is multiplied.

    norm: the module in the block that gives them; of several, the first that the block has. by: or the role of the
    linear whose rows give them. kept: modules beside the linears that read the norm too. heads: config entry with how
    many heads `by` gives, each read by as many heads of the readers as there are more of those. act: config entry with
    the activation in between where no gate stands beside it, and `usual` the one where the config says nothing; only
    ReLU lets positive factors through. only: config entry that must not be false. why: why nothing folds in, where
    nothing does. Folds that end at one norm in a block are one, as where attention and feed-forward run in parallel.
    """

    reads: tuple[str, ...]
    norm: tuple[str, ...] = ()
    by: str = ""
    kept: tuple[str, ...] = ()
    heads: str = ""
    act: str = ""
    usual: str = "relu"
    only: str = ""
    why: Message | None = None


@dataclass(frozen=True)
class Family:
    """`architectures` that the row describes, and module names: the list of `blocks`, embedding, final norm, head.

    Several names in `blocks` are stacks that follow each other. `linears` are in every block; of `alternatives` a block
    has the one that its tensors are of (a dense or a sparse feed-forward). `beside` are modules outside the blocks and
    `kept` such inside them (a router) that stay as they are. count: config entries with the number of blocks, one a
    stack. ties: whether head and embedding are one tensor where the config says nothing. A tensor in a block whose name
    ends like one of `computed` is not read by anyone. renames: regular expressions that turn a stored name into the
    module's. softcap: config entry with c where logits z become c tanh(z / c).
    packed: why stock transformers loads no packed linears of it, if so. shared: other modules that are the embedding
    too. returns: how many values a block gives; what comes after hidden
    states is made by the first block of a stack and handed to the next ones (position biases). folds: what becomes of
    factors for each channel of every input that linears read. norm_adds: what norms add to their stored weights.
    writes: roles of the linears whose outputs are added to the residual stream, where nothing in between keeps that
    from being turned as a whole; still: or what does. known: False for what only modules are known of, without a row.
    found: the row was made by running the model (`whet.walk.look`). tupled: how many values the tuple has that its
    blocks give, of which hidden states are the first; 0 where they give those alone. logit_factor: what logits are over
    the product of final states and the head's table; logit_scale: the config entry that says so, and the power it is
    taken to. bias: stored tensor that the head adds to logits. called: the model's names of stored tensors that
    transformers calls otherwise. width: the config entry with the channels of a feed-forward.
    Of a text model inside a larger one (`whet.anatomy.inner`): leads: what names of its modules begin with by itself,
    and in the larger model. entries: those of its own config. naming: what the larger model calls a stored tensor, in
    place of `renames`. left_out: entries that its own class has in the logits and the larger model has not, with values
    that change nothing.
    """

    architectures: tuple[str, ...]
    linears: tuple[LinearName, ...]
    title: str = ""
    blocks: str | tuple[str, ...] = "model.layers"
    embedding: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    alternatives: tuple[tuple[LinearName, ...], ...] = ()
    beside: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    count: tuple[str, ...] = ("num_hidden_layers",)
    ties: bool = False
    # buffers that old versions stored inside blocks and that are computed from the config today
    computed: tuple[str, ...] = (".rotary_emb.inv_freq",)
    renames: tuple[tuple[str, str], ...] = ()
    softcap: str = ""
    packed: Message | None = None
    shared: tuple[str, ...] = ()
    returns: int = 1
    folds: tuple[Fold, ...] = ()
    norm_adds: float = 0.0
    writes: tuple[str, ...] = ()
    still: Message | None = None
    known: bool = True
    found: bool = False
    tupled: int = 0
    logit_factor: float = 1.0
    logit_scale: tuple[str, int] | None = None
    width: str = "intermediate_size"
    bias: str = ""
    called: Mapping[str, str] = field(default_factory=dict)
    leads: tuple[str, str] | None = None
    entries: Mapping[str, Any] = field(default_factory=dict, hash=False)
    naming: Callable[[str], str] | None = field(default=None, compare=False)
    left_out: Mapping[str, float | None] = field(default_factory=dict, hash=False)

    @property
    def counted(self) -> bool:
        """Whether the config's number of blocks is believed; else there are as many as are stored."""
        return self.known and not self.found

    @property
    def stacks(self) -> tuple[str, ...]:
        """Names of the lists of blocks."""
        return (self.blocks,) if isinstance(self.blocks, str) else self.blocks

    @property
    def every(self) -> tuple[LinearName, ...]:
        """Linears of blocks of every kind."""
        return (*self.linears, *(name for kind in self.alternatives for name in kind))

    def module_name(self, stored: str) -> str:
        """What a tensor stored as `stored` is called in the model."""
        if stored in self.called:
            return self.called[stored]
        if self.naming is not None:
            return self.naming(stored)
        for pattern, replacement in self.renames:
            stored = re.sub(pattern, replacement, stored)
        return stored

    @property
    def place(self) -> str:
        """The module of the larger model that is the text model; an empty word where there is no larger one."""
        return self.leads[1] if self.leads else ""

    def own_name(self, name: str) -> str | None:
        """What the text model by itself calls the module or tensor `name` of the larger model; None for what is none of
        its own, such as a tower's."""
        if self.leads is None:
            return name
        lead, there = self.leads
        if self.head and name.startswith(f"{self.head}."):
            return f"{_HEAD}.{name.removeprefix(f'{self.head}.')}"
        if there and not name.startswith(f"{there}."):
            return None
        return moved(name, there, lead)

    def task(self, architecture: str) -> str:
        """`causal`, `masked`, `classification` (of texts), `tokens` (classes of each token), `seq2seq`, `spans` (where
        answers begin and end) or `states` (hidden states, of a base model); of no architecture in particular, the
        first one's. Text models inside larger ones go on with a text, whatever those
        are called."""
        task = task_of(architecture, *self.architectures)
        return "causal" if self.entries and task == "seq2seq" else task
