"""Every option of the steps, spelled once: the command line, the Python verbs, recipes and their JSON Schema are made
from these models. (Importing it is light: no torch.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field

from whet.errors import UsageError
from whet.messages import with_and
from whet.steps.distill_options import Distill as Distill
from whet.steps.dynamic_options import Dynamic as Dynamic
from whet.steps.heal_options import Heal as Heal
from whet.steps.option_kinds import CHAT as CHAT
from whet.steps.option_kinds import DEQUANTIZE as DEQUANTIZE
from whet.steps.option_kinds import FIELD as FIELD
from whet.steps.option_kinds import SAMPLES as SAMPLES
from whet.steps.option_kinds import SKIP_BAD as SKIP_BAD
from whet.steps.option_kinds import EvalText as EvalText
from whet.steps.option_kinds import Opening as Opening
from whet.steps.option_kinds import Options as Options
from whet.steps.option_kinds import Shown as Shown
from whet.steps.option_kinds import Source as Source
from whet.steps.option_kinds import Text as Text
from whet.steps.prune_options import Prune as Prune
from whet.steps.prune_options import Slice as Slice
from whet.steps.tune_options import Merge as Merge
from whet.steps.tune_options import Tune as Tune

RECIPE = "recipe.yaml"
TARGET = "transformers"  # where none is asked for
AUTO = "auto"  # the runtime that is fast here
# Named here and not read off the tables, which are slow to import; a test keeps them equal.
RUNTIMES = "transformers, vllm, llama.cpp, onnx, openvino, whet"
TRANSFORMS = "smooth, awq, rotate, quarot, spinquant, auto"
IMPORTANCES = "magnitude, wanda, sparsegpt"
SOLVERS = "fast, good, best, nearest, gptq, gptaq, block, tuned"
# Those that are asked for most; a scheme has many more names.
SCHEMES = "W4A16, W8A16, W3A16, W2A16, int4-g32, int4-g64, int3-g32, FP8, NVFP4, MXFP4, nf4, Q8_0, Q6_K, Q5_K_M, Q4_K_M"
DEVICES = "auto, cpu, cuda"
ALLOCATIONS = "uniform, owl"
IMPORTANCE = "sparsegpt"  # where none is asked for


class Budget(Options):
    """What the lighter model may take or must keep; at most one of them."""

    fit: str | int | None = Field(
        default=None, description="The most bytes of the weight files: 400MB, 1.5GiB, or 25% of the original's"
    )
    bits: float | None = Field(default=None, description="The most stored bits a parameter, everything counted: 3.5")
    quality: float | None = Field(
        default=None, description="The share of the original's quality to keep, at the fewest bytes: 0.98"
    )
    latency: str | None = Field(
        default=None, description="The most time of a decoded token on this machine, measured here: 30ms"
    )
    speedup: float | None = Field(
        default=None, description="How many times as fast it decodes as the same runtime's 16-bit file here: 2"
    )

    @property
    def timed(self) -> bool:
        """Whether time is asked for."""
        return self.latency is not None or self.speedup is not None


class Target(Options):
    """Where the lighter model runs."""

    target: Annotated[str | None, Shown(default="transformers", among=RUNTIMES)] = Field(
        default=None, alias="for", description=f"The runtime that is to load it: {RUNTIMES}"
    )


class Runtime(Options):
    """Where the lighter model runs, which may be left to measurements."""

    target: Annotated[str | None, Shown(default="transformers", among=f"{RUNTIMES}, {AUTO}")] = Field(
        default=None,
        alias="for",
        description=f"The runtime that is to load it, or {AUTO}, which measures what is fast here: {RUNTIMES}",
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
    precisions: Annotated[str | None, Shown(among="8,4,2")] = Field(
        default=None, description="Several precisions in one folder, switched while it runs: the scheme's at 8,4,2 bits"
    )


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


class Quantize(Opening, Text, Runtime, Sparsity, Method, Budget, Schemes):
    """Round the weights. What to do is said by one of scheme, plan, fit, bits, quality, latency and speedup."""

    WAYS: ClassVar[dict[str, tuple[str, ...]]] = {
        # a way to say what to do, and what it leaves no room for
        "scheme": ("skills",),
        "plan": ("embed", "skills"),
        "fit": ("embed", "repair", "sparsity", "importance", "kv"),
        "bits": ("embed", "repair", "sparsity", "importance", "kv"),
        "quality": ("embed", "repair", "sparsity", "importance", "kv"),
        "latency": ("embed", "repair", "sparsity", "importance", "kv"),
        "speedup": ("embed", "repair", "sparsity", "importance", "kv"),
    }

    skills: Source | None = Field(
        default=None, description="With a budget: a .jsonl file of questions whose skills it is to keep"
    )
    eval_text: EvalText = None
    kv: Annotated[str | None, Shown(among="fp8, fp8-head, int8-tensor, int8-head")] = Field(
        default=None,
        description="Calibrate scales for keys and values, which transformers and vLLM then keep in 8 bits: "
        "fp8, fp8-head, int8-tensor or int8-head",
    )
    folder: bool = Field(
        default=False,
        description="With --for llama.cpp, onnx or openvino: keep the Hugging Face folder of the same weights too",
    )

    @property
    def budgeted(self) -> bool:
        """Whether a budget decides on the schemes."""
        return self.fit is not None or self.bits is not None or self.quality is not None or self.timed

    def check(self) -> None:
        """Raises UsageError unless at most one of the ways to say what to do was taken, and only with what goes with
        it."""
        given = [name for name in self.WAYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(
                "{ways} were given, and each alone says what to do. Give one: scheme (with embed) for one grid "
                "throughout, plan for what a file says, or a budget: fit, bits, quality, latency or speedup.",
                ways=with_and(given),
            )
        if self.embed is not None and given not in ([], ["scheme"]):
            raise UsageError(
                "embed goes with scheme: {way} decides on embedding and head itself. Leave embed out.", way=given[0]
            )
        if self.skills is not None and not self.budgeted:
            raise UsageError(
                "skills tell what a budget is to keep: give a budget with them (fit, bits, quality, latency or "
                "speedup), "
                "or leave them out."
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
        if self.kv is not None and self.budgeted:
            raise UsageError(
                "kv goes with scheme and plan: its scales are calibrated on one model, and {way} makes several. Make "
                "a plan first (whet plan) and give it with --plan.",
                way=given[0],
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


class Masks(Opening, Text):
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
    allocation: Annotated[str, Shown(among=ALLOCATIONS)] = Field(
        default="uniform",
        description="With remove: whether every block loses the share, or by owl those with more outliers less",
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
        if self.allocation != "uniform" and self.pattern is not None:
            raise UsageError(
                "allocation goes with remove: {pattern} is the same in every block. Leave allocation out.",
                pattern=self.pattern,
            )


class Transform(Opening, Text, Target):
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


class Export(Opening):
    """Write the model as one file that its runtime reads, and prove that it is the same model."""

    to: str = Field(default="gguf", description="The format: gguf, onnx or openvino")
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
    measure: list[str] | None = Field(
        default=None, description="What else to measure: names of aspects, all, standard or none; -NAME leaves one out"
    )


# Every step of a recipe by its name, and its options. What each does is in `whet.steps.crafts`.
STEPS: dict[str, type[Options]] = {
    "prune": Prune,
    "slice": Slice,
    "dynamic": Dynamic,
    "masks": Masks,
    "distill": Distill,
    "tune": Tune,
    "heal": Heal,
    "transform": Transform,
    "quantize": Quantize,
    "export": Export,
    "compare": Compare,
}


def recipe_text(recipe: Mapping[str, Any], again: str = "whet compress MODEL OUT --recipe recipe.yaml") -> str:
    """A resolved recipe as the file that goes into the finished folder. again: the command that replays it."""
    head = f"# What made this folder, every default filled in. Again: {again}\n"
    return head + yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
