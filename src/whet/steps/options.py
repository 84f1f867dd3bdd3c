"""Every option of the steps, spelled once: the command line, the Python verbs, recipes and their JSON Schema are made
from these models. (Importing it is light: no torch.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import yaml
from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema

from whet.errors import UsageError, did_you_mean
from whet.messages import Message, with_and
from whet.strict import Strict, checked

RECIPE = "recipe.yaml"
TARGET = "transformers"  # where none is asked for
# Named here and not read off the tables, which are slow to import; a test keeps them equal.
RUNTIMES = "transformers, vllm, llama.cpp, onnx, openvino, whet"
TRANSFORMS = "smooth, awq, rotate, quarot, spinquant, auto"
IMPORTANCES = "magnitude, wanda, sparsegpt"
SOLVERS = "fast, good, best, nearest, gptq, gptaq, block, tuned"
# Those that are asked for most; a scheme has many more names.
SCHEMES = "W4A16, W8A16, W3A16, W2A16, int4-g32, int4-g64, int3-g32, FP8, NVFP4, MXFP4, nf4, Q8_0, Q6_K, Q5_K_M, Q4_K_M"
DEVICES = "auto, cpu, cuda"
IMPORTANCE = "sparsegpt"  # where none is asked for
SIZES = "90%, 80%, 70%, 60%, 50%"  # of the smaller models in an elastic folder
UNITS = "layers, channels, heads, experts"
CHOSEN_BY = "obs, magnitude, activation, wanda, leverage, divergence, perplexity, influence, reap, frequency"
ADAPTERS = "lora, rslora, dora, pissa, sharelora, qalora, full"
RANK = 16  # of an adapter where none is asked for
LEARNT = 4096  # windows of text to learn, at the most, where no number is asked for
HOWS = "exact, beside, round, dense"
FIELD = "The field of records that holds the text; where there is no field text, the only one that does"
CHAT = "Records are conversations: apply the model's chat template"
SKIP_BAD = "Leave out records of the text that cannot be read, and tell how many they were"
SAMPLES = 128  # windows of text, at the most, where no number is asked for


@dataclass(frozen=True)
class Shown:
    """How the command line shows an option: what stands for its value, and its default where that is not `None`.

    among: the values, or the usual ones, that a shell completes, with commas between.
    """

    metavar: str | None = None
    default: str | None = None
    among: str = ""


def _named_in_a_document(value: Any, info: ValidationInfo) -> Any:
    """In a recipe what is a file in Python too is a file or a name, never the thing itself."""
    if isinstance(info.context, dict) and info.context.get("document") and not isinstance(value, str):
        raise ValueError(Message("it must be a string, the name of a file or of a data set"))
    return value


# A path or name; from Python also what such a file holds.
Source = Annotated[Any, AfterValidator(_named_in_a_document), WithJsonSchema({"type": "string"})]


class Options(Strict):
    """Options of a step or verb."""

    @classmethod
    def of(cls, verb: str, **options: Any) -> Self:
        """From Python arguments. Raises UsageError that names the argument, and the nearest known one."""
        return checked(cls, options, verb, by_name=True)

    def document(self) -> dict[str, Any]:
        """As a recipe spells it; what was no file (text, questions) is left out, and a plan that was none is named."""
        found = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Path):
                value = str(value)
            if name == "plan" and isinstance(value, Mapping):
                value = "plan.json"
            if isinstance(value, str | int | float | dict) and value != {}:
                found[field.alias or name] = value
        return found


class Text(Options):
    """The text a step calibrates on."""

    text: Source | None = Field(
        default=None,
        description="A .txt, .jsonl, .json, .csv, .tsv or .parquet file, a folder of them, or a data set on the hub",
    )
    field: str = Field(default="text", description=FIELD)
    chat: bool = Field(default=False, description=CHAT)
    skip_bad: bool = Field(default=False, description=SKIP_BAD)
    samples: Annotated[int | None, Shown(default="128, or fewer where more do not help")] = Field(
        default=None, ge=1, description="Windows of text to calibrate on"
    )
    window: int = Field(default=2048, ge=8, description="Tokens in a window of text")

    @property
    def most_samples(self) -> int:
        """Windows to calibrate on, at the most."""
        return SAMPLES if self.samples is None else self.samples


class Budget(Options):
    """What the lighter model may take or must keep; at most one of the three."""

    fit: str | int | None = Field(
        default=None, description="The most bytes of the weight files: 400MB, 1.5GiB, or 25% of the original's"
    )
    bits: float | None = Field(default=None, description="The most stored bits a parameter, everything counted: 3.5")
    quality: float | None = Field(
        default=None, description="The share of the original's quality to keep, at the fewest bytes: 0.98"
    )


class Target(Options):
    """Where the lighter model runs."""

    target: Annotated[str | None, Shown(default="transformers", among=RUNTIMES)] = Field(
        default=None, alias="for", description=f"The runtime that is to load it: {RUNTIMES}"
    )


class Solver(Options):
    """How hard it is tried."""

    solver: Annotated[str | None, Shown(default="good", among=SOLVERS)] = Field(
        default=None, description="fast, good or best; or by name: nearest (needs no text), gptq, gptaq, block, tuned"
    )


class Method(Solver):
    """How linears are rounded, and what is done before and beside it."""

    transform: Annotated[str | None, Shown(among=TRANSFORMS)] = Field(
        default=None, description=f"What is folded into the original first, exactly: {TRANSFORMS}"
    )
    repair: Annotated[int | None, Shown(metavar="RANK")] = Field(
        default=None,
        ge=1,
        strict=True,
        description="Put back what rounding lost as an adapter of this rank in OUT/adapter: 16",
    )
    synthetic: Annotated[int | None, Shown(metavar="TOKENS")] = Field(
        default=None,
        ge=0,
        description="Tokens of text that the original writes beside yours; best has some where yours is little",
    )


class Schemes(Options):
    """What parts are rounded to."""

    scheme: Annotated[str | None, Shown(default="W4A16", among=SCHEMES)] = Field(
        default=None, description="W4A16, int4-g32, int3z-g64, FP8, NVFP4, MXFP4, nf4, Q4_K and others"
    )
    embed: Annotated[str | None, Shown(among=SCHEMES)] = Field(
        default=None, description="The scheme of embedding and head; without it they stay as they are"
    )
    plan: Source | None = Field(default=None, description="A plan, which names a scheme for each part: a .json file")


class Sparsity(Options):
    """What becomes 0 while the rest is rounded."""

    sparsity: Annotated[str | float | None, Shown(among="50%, 2:4, kept")] = Field(
        default=None,
        description="Weights made 0 while quantizing: 2:4 keeps two of every four, 50% takes half; or kept: "
        "those that are 0 in the model",
    )
    importance: Annotated[str | None, Shown(default=IMPORTANCE, among=IMPORTANCES)] = Field(
        default=None, description=f"By what those are chosen: {IMPORTANCES}"
    )


EvalText = Annotated[
    Source | None,
    Field(alias="eval", description="Text to verify on; without it a tenth of the text is kept for that"),
]


class Quantize(Text, Target, Sparsity, Method, Budget, Schemes):
    """Round the weights. What to do is said by one of scheme, plan, fit, bits and quality."""

    WAYS: ClassVar[dict[str, tuple[str, ...]]] = {
        # a way to say what to do, and what it leaves no room for
        "scheme": ("skills",),
        "plan": ("embed", "skills"),
        "fit": ("embed", "repair", "sparsity", "importance"),
        "bits": ("embed", "repair", "sparsity", "importance"),
        "quality": ("embed", "repair", "sparsity", "importance"),
    }

    skills: Source | None = Field(
        default=None, description="With a budget: a .jsonl file of questions whose skills it is to keep"
    )
    eval_text: EvalText = None
    folder: bool = Field(
        default=False,
        description="With --for llama.cpp: keep the Hugging Face folder of the same weights beside the .gguf",
    )

    @property
    def budgeted(self) -> bool:
        """Whether a budget decides on the schemes."""
        return self.fit is not None or self.bits is not None or self.quality is not None

    def check(self) -> None:
        """Raises UsageError unless at most one of the ways to say what to do was taken, and only with what goes with
        it."""
        given = [name for name in self.WAYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(
                "{ways} were given, and each alone says what to do. Give one: scheme (with embed) for one grid "
                "throughout, plan for what a file says, or a budget: fit, bits or quality.",
                ways=with_and(given),
            )
        if self.embed is not None and given not in ([], ["scheme"]):
            raise UsageError(
                "embed goes with scheme: {way} decides on embedding and head itself. Leave embed out.", way=given[0]
            )
        if self.skills is not None and not self.budgeted:
            raise UsageError(
                "skills tell what a budget is to keep: give fit, bits or quality with them, or leave them out."
            )
        if self.repair is not None and self.budgeted:
            raise UsageError(
                "repair goes with scheme and plan: what {way} plans does not know what a repair of rank {rank} wins "
                "back. Leave repair out, or make a plan for fewer bytes first (whet plan) and give it with --plan.",
                way=given[0],
                rank=self.repair,
            )
        if self.sparsity is not None and self.budgeted:
            raise UsageError(
                "sparsity goes with scheme and plan: what {given} plans does not know what {sparsity} loses. Leave "
                "sparsity out, or take weights first (whet masks) and give the budget for what that makes.",
                given=given[0],
                sparsity=self.sparsity,
            )
        if self.bits is not None and not 0 < self.bits <= 32:
            raise UsageError(
                "bits {bits:g} is no budget: give the stored bits a parameter, such as 3.5.", bits=self.bits
            )
        if self.quality is not None and not 0 < self.quality <= 1:
            raise UsageError(
                "quality {quality:g} is no share of the original's: give one between 0 and 1, such as 0.98.",
                quality=self.quality,
            )


class Masks(Text):
    """Take weights: they become exactly 0."""

    remove: Annotated[str | float | None, Shown(among="50%")] = Field(
        default=None, description="The share of weights to take: 50%, or 0.5"
    )
    pattern: Annotated[str | None, Shown(among="2:4, 4:8")] = Field(
        default=None, description="Take as many of neighbours in a row instead: 2:4 keeps two of every four"
    )
    importance: Annotated[str, Shown(among=IMPORTANCES)] = Field(
        default=IMPORTANCE, description=f"By what weights are chosen: {IMPORTANCES}"
    )
    within: Annotated[str | None, Shown(default="as the importance's paper does", among="row, matrix")] = Field(
        default=None, description="What a share is taken of: every row, or the matrix"
    )
    update: bool = Field(default=True, description="Move the weights that stay to make up for those that are taken")
    eval_text: EvalText = None

    def check(self) -> None:
        """Raises UsageError unless it says how much to take in one way."""
        if (self.remove is None) == (self.pattern is None):
            raise UsageError(
                "Masks need one of remove (the share of weights, 50%) and pattern (2:4), and {count} were given.",
                count=0 if self.remove is None else 2,
            )
        if self.within is not None and self.pattern is not None:
            raise UsageError(
                "within goes with remove: {pattern} is taken of neighbours. Leave within out.", pattern=self.pattern
            )


class Prune(Text):
    """Take blocks, channels, heads or experts out altogether, or tokens; the model stays of its family."""

    remove: Annotated[str | float | None, Shown(among="12.5%, 25%, 37.5%")] = Field(
        default=None, description="The share of the blocks' parameters to take: 25%, or 0.25"
    )
    units: Annotated[str | None, Shown(default="all that the model has; of experts those alone", among=UNITS)] = Field(
        default=None, description=f"With remove or elastic: what may go, with commas between: {UNITS}; shapes are tried"
    )
    importance: Annotated[str | None, Shown(default="obs, divergence or reap", among=CHOSEN_BY)] = Field(
        default=None,
        description=f"With remove or elastic: by what units are chosen, one for some or for all: {CHOSEN_BY}",
    )
    repair: bool = Field(
        default=True, description="Fit the weights that stay to make up for what goes; with elastic, only measure that"
    )
    elastic: bool = Field(
        default=False, description="Take nothing: sort the model by what is worth most, so that whet slice can cut it"
    )
    sizes: Annotated[str | None, Shown(default="90% to 50%, in steps of 10%", among=SIZES)] = Field(
        default=None, description="With elastic: sizes to find shapes for, in shares of the blocks' parameters: 80%,60%"
    )
    vocab: Source | None = Field(
        default=None, description="Take tokens instead: those stay that occur in this text, a file or a folder"
    )
    keep_languages: Annotated[str | None, Shown(among="ko, en")] = Field(
        default=None, description="Tokens of these languages' scripts stay too, with commas between: ko,en"
    )
    min_count: int = Field(default=1, ge=1, description="With vocab: how often a token has to occur to stay")
    eval_text: EvalText = None

    @property
    def of_tokens(self) -> bool:
        """Whether tokens go."""
        return self.vocab is not None or self.keep_languages is not None

    def check(self) -> None:
        """Raises UsageError unless it says what goes in one way."""
        if (self.remove is not None) + self.of_tokens + self.elastic != 1:
            raise UsageError(
                "Say what goes: remove (a share of the blocks' parameters, 25%), vocab and keep_languages (tokens), or "
                "elastic (nothing yet). Each is a step of its own, so give one, and another for what that makes."
            )
        if self.sizes is not None and not self.elastic:
            raise UsageError("sizes goes with elastic, which finds the smaller models in a folder. Leave it out.")
        given = [name for name in ("units", "importance", "text") if getattr(self, name) is not None]
        if self.of_tokens and given:
            raise UsageError(
                "{given} goes with remove: tokens are chosen by vocab and keep_languages. Leave it out.", given=given[0]
            )


class Slice(Options):
    """Cut a smaller model from an elastic folder, without text and without moving a weight."""

    size: Annotated[str | float, Shown(among=SIZES)] = Field(
        description="The share of the blocks' parameters that stays, one of the folder's sizes: 60%, or 0.6"
    )


class Transform(Text, Target):
    """Fold factors or rotations into the model, exactly, so that rounding to `scheme` loses less. It stays dense."""

    kind: str = Field(description=f"What is folded in: {TRANSFORMS}")
    scheme: Annotated[str | None, Shown(default="W4A16", among=SCHEMES)] = Field(
        default=None, description="The scheme that a later step rounds to, which the transform is made for"
    )
    embed: str | None = Field(default=None, description="The same of embedding and head")
    solver: Annotated[str | None, Shown(default="good", among=SOLVERS)] = Field(
        default=None, description="The solver that a later step rounds with, which auto judges by"
    )
    eval_text: EvalText = None


class Tune(Text):
    """Train the model on text: by an adapter beside its linears, or all of it."""

    adapter: Annotated[str, Shown(among=ADAPTERS)] = Field(
        default="lora", description=f"What is trained: {ADAPTERS} (every parameter)"
    )
    rank: Annotated[int | None, Shown(default=str(RANK))] = Field(
        default=None, ge=1, strict=True, description="The rank of the adapter"
    )
    lora: Annotated[int | None, Shown(metavar="RANK")] = Field(
        default=None, ge=1, strict=True, description="The same as adapter lora with this rank"
    )
    alpha: Annotated[float | None, Shown(default="twice the rank, or what the kind takes")] = Field(
        default=None, gt=0, description="What the adapter is scaled by, over its rank"
    )
    targets: Annotated[str, Shown(among="all, q, k, v, o, gate, up, down")] = Field(
        default="all", description="Roles of the linears that get an adapter, with commas between: q,v; or all"
    )
    teacher: Source | None = Field(
        default=None, description="The folder of a model whose predictions are learnt, instead of the text's next token"
    )
    original: Source | None = Field(
        default=None, description="Of a quantized MODEL, the original: the adapter begins as what rounding lost"
    )
    mask: bool = Field(default=True, description="Of conversations learn the replies alone")
    steps: Annotated[int | None, Shown(default="three times through the text, at most 1000")] = Field(
        default=None, ge=1, strict=True, description="Train for so many steps"
    )
    minutes: float | None = Field(default=None, gt=0, description="Train for about so long on this machine")
    batch: int = Field(default=2048, ge=1, description="Tokens of a step")
    learning_rate: Annotated[float | None, Shown(default="0.001, of full 0.0001")] = Field(
        default=None, gt=0, description="The highest learning rate"
    )
    samples: Annotated[int | None, Shown(default=f"{LEARNT}, or what the text holds")] = Field(
        default=None, ge=1, description="Windows of text to train on"
    )
    window: int = Field(default=512, ge=8, description="Tokens in a window of text")
    checkpointing: bool = Field(
        default=False, description="Compute blocks again on the way back: less memory, a third more time"
    )
    merge: bool = Field(default=False, description="Write the whole model with the adapter merged into it")
    eval_text: EvalText = None

    @property
    def most_samples(self) -> int:
        """Windows to train on, at the most."""
        return LEARNT if self.samples is None else self.samples

    @property
    def size(self) -> int:
        """The rank."""
        return self.lora or self.rank or RANK

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.lora is not None and (self.rank is not None or self.adapter != "lora"):
            raise UsageError(
                "lora {lora} says both what is trained and its rank. Leave {other} out, or give adapter and rank.",
                lora=self.lora,
                other="adapter" if self.adapter != "lora" else "rank",
            )
        if self.steps is not None and self.minutes is not None:
            raise UsageError(
                "{ways} were given, and each alone says how long to train. Give one.",
                ways=with_and(["steps", "minutes"]),
            )
        given = [n for n in ("rank", "alpha", "original") if self.adapter == "full" and getattr(self, n) is not None]
        given += ["targets"] * (self.adapter == "full" and self.targets != "all")
        if given:
            raise UsageError("{given} is of adapters, and full trains every parameter. Leave it out.", given=given[0])
        if self.original is not None and self.adapter in ("pissa", "sharelora", "qalora"):
            raise UsageError(
                "original says what the adapter begins as, and so does {adapter}. Leave one out.", adapter=self.adapter
            )


class Merge(Options):
    """Make an adapter a part of the model it is for."""

    how: Annotated[str | None, Shown(default="exact where that can be, else beside", among=HOWS)] = Field(
        default=None,
        description="Into a quantized model: exact (into the zeros of its codes), beside (as a part of the folder), "
        "round (weights rounded again) or dense (weights that are not quantized)",
    )
    undo: bool = Field(default=False, description="Take an adapter out again that was merged exactly into codes")
    solver: Annotated[str | None, Shown(default="good with text, else nearest", among=SOLVERS)] = Field(
        default=None, description="With round: how hard it is tried"
    )
    text: Source | None = Field(default=None, description="With round: the text to calibrate and to verify on")
    field: str = Field(default="text", description=FIELD)
    chat: bool = Field(default=False, description=CHAT)

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.how is not None and self.how not in HOWS.split(", "):
            raise UsageError(
                "how {how} is not known.{near} Ways: {known}.",
                how=self.how,
                near=did_you_mean(self.how, HOWS.split(", ")),
                known=HOWS,
            )
        if self.undo and self.how not in (None, "exact"):
            raise UsageError("undo takes out what was merged exactly. Leave how out.")
        given = [name for name in ("solver", "text") if getattr(self, name) is not None]
        if given and self.how != "round":
            raise UsageError("{given} goes with --how round. Leave it out, or give that.", given=given[0])


class Export(Options):
    """Write the model as one file that its runtime reads, and prove that it is the same model."""

    to: str = Field(default="gguf", description="The format: gguf")
    kind: str | None = Field(default=None, description="Of a dense model, the type of its matrices: f32, f16 or bf16")


class Compare(Options):
    """Measure what was kept of the original on the report part of text and questions, which nothing else opens."""

    windows: int | None = Field(default=256, ge=1, description="Windows of text to compare on; null takes all of it")
    window: int = Field(default=512, ge=8, description="Tokens in a window of text")
    limits: dict[str, float | None] = Field(
        default_factory=dict,
        description="What must hold, over the defaults: min_retention, max_kl, min_top1, ...",
    )
    speed: bool = Field(default=True, description="Also measure speed and memory")


# Every step of a recipe by its name, and its options. What each does is in `whet.steps.crafts`.
STEPS: dict[str, type[Options]] = {
    "prune": Prune,
    "slice": Slice,
    "masks": Masks,
    "tune": Tune,
    "transform": Transform,
    "quantize": Quantize,
    "export": Export,
    "compare": Compare,
}


def recipe_text(recipe: Mapping[str, Any], again: str = "whet compress MODEL OUT --recipe recipe.yaml") -> str:
    """A resolved recipe as the file that goes into the finished folder. again: the command that replays it."""
    head = f"# What made this folder, every default filled in. Again: {again}\n"
    return head + yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
