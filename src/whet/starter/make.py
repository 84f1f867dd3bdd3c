"""Makes the starter: `python -m whet.starter.make --out DIR` (`make starter`).

Tokenizer, model and batches all come from seeds. Training documents are packed whole into windows (no document is cut,
none starts without its beginning), each ending in `</s>`. Killed at any moment, `--resume` goes on from the last saved
state to the same bytes. It runs on one thread, so that the number of cores does not change the result; the shipped
model took 95 minutes on one core with AVX-512 bf16.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from whet.errors import UsageError, WhetError
from whet.events import OnEvent, ignore
from whet.starter import SKILLS, Document, mixed, skills
from whet.starter.curriculum import PLAIN, STEPS, stage_of
from whet.train import Schedule, Settings, train

SPECIAL = ["<s>", "</s>", "<pad>"]
VOCABULARY = 4096
CONTEXT = 256
ROWS, WINDOW = 24, 128
DECAY = 0.25
PEAK = 4e-3


class Size(NamedTuple):
    """The shape of a starter: six blocks, heads of 32; what is taught and how long is the same at every size."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    parameters: str


# The smaller ones are for measuring what a smaller model learns of the same text (and for students); only the full one
# ships. All three learn the book: 99.2, 99.5 and 100 % of the facts. Its 1,260 facts are some kilobits, of which even
# 1.2 M parameters hold a hundred times as many (about 2 bits a parameter, Allen-Zhu and Li 2024, arXiv 2404.05405).
SIZES = {
    "full": Size(256, 512, 8, 4, "4.6"),
    "half": Size(168, 336, 6, 3, "2.3"),
    "quarter": Size(112, 224, 4, 2, "1.2"),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE on the starter's own text, pre-tokenized as GPT-2 does (llama.cpp's `gpt-2`).

    Digits are taken out of the text it learns merges from, so that each digit stays a token of its own: arithmetic is
    learnt by column.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    rng = Random("starter documents -1")
    texts = ("".join(text for text, _ in mixed(rng, PLAIN)) for _ in range(40_000))
    tokenizer.train_from_iterator((re.sub(r"\d", "", text) for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(seed: int, size: Size = SIZES["full"]) -> LlamaForCausalLM:
    """The untrained model in fp32, normal(0, 0.02); 4.6 M parameters at the full size."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=size.hidden,
            intermediate_size=size.ffn,
            num_hidden_layers=6,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    )


def _encode(tokenizer: Tokenizer, document: Document, rng: Random, quiet: float = 1.0) -> tuple[list[int], list[float]]:
    """Token ids with `</s>` and the weight of predicting each; of lightly weighted tokens few count, at half weight."""
    encoding = tokenizer.encode("".join(text for text, _ in document))
    weights, piece, end = [], 0, len(document[0][0])
    for start, _ in encoding.offsets:
        while start >= end:
            piece += 1
            end += len(document[piece][0])
        weight = document[piece][1]
        weights.append(weight if weight >= 0.5 else 0.5 * (rng.random() < 2 * quiet * weight))
    return [*encoding.ids, 1], [*weights, 0.5]


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, steps: int = STEPS
) -> Callable[[int], dict[str, torch.Tensor]]:
    """The batch of each step, from `seed`, the length of the run and the step alone.

    One step in four has half as many rows, twice as long, so that the whole context is trained.
    """
    backend = tokenizer.backend_tokenizer

    def batch(step: int) -> dict[str, torch.Tensor]:
        rng = Random(f"starter training {seed} {step}")
        rows, window = (ROWS // 2, 2 * WINDOW) if step % 4 == 3 else (ROWS, WINDOW)
        ids = torch.full((rows, window + 1), 2)
        weights = torch.zeros(rows, window + 1)
        filled, missed, stage = [0] * rows, 0, stage_of(step, steps)
        while missed < 8:
            tokens, counts = _encode(backend, mixed(rng, stage.mixture), rng, stage.quiet)
            row = next((row for row in range(rows) if filled[row] + len(tokens) <= window + 1), None)
            if row is None:
                missed += 1
                continue
            place = slice(filled[row], filled[row] + len(tokens))
            ids[row, place], weights[row, place] = torch.tensor(tokens), torch.tensor(counts)
            filled[row] += len(tokens)
        return {"input_ids": ids, "weights": weights[:, 1:]}

    return batch


@torch.no_grad()
def accuracies(model: Any, tokenizer: PreTrainedTokenizerBase, items: list[dict[str, Any]]) -> dict[str, float]:
    """Share of right answers per skill: greedy answers compared exactly, choices by their log-likelihood."""
    right: dict[str, list[bool]] = defaultdict(list)
    lengths: dict[int, list[tuple[dict[str, Any], list[int]]]] = defaultdict(list)
    for item in items:
        prompt = tokenizer(item["prompt"])["input_ids"]
        if "choices" in item:
            scores = []
            for choice in item["choices"]:
                full = tokenizer(item["prompt"] + choice, return_tensors="pt")["input_ids"]
                chances = model(full).logits[0, :-1].float().log_softmax(-1).gather(1, full[0, 1:, None])
                scores.append(float(chances[len(prompt) - 1 :].sum()))
            right[item["skill"]].append(max(range(len(scores)), key=scores.__getitem__) == item["label"])
        else:
            lengths[len(prompt)].append((item, prompt))
    newline = tokenizer("\n")["input_ids"][0]
    for same in lengths.values():  # prompts of one length need no padding
        for start in range(0, len(same), 64):
            part = same[start : start + 64]
            prompts = torch.tensor([prompt for _, prompt in part])
            made = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=False,
                max_new_tokens=48,
                eos_token_id=[1, newline],
                pad_token_id=2,
            )
            for (item, prompt), ids in zip(part, made.tolist(), strict=True):
                text = str(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))
                right[item["skill"]].append(text.split("\n")[0].strip() == item["answer"])
    return {skill: sum(answers) / len(answers) for skill, answers in right.items()}


def _card(measured: dict[str, float], steps: int, per_skill: int, name: str) -> str:
    """The model card: what it is, what it was taught, what it scores, how to make it again."""
    rows = "\n".join(f"| {skill} | {100 * share:.1f} % |" for skill, share in measured.items())
    size, full = SIZES[name], name == "full"
    use = (
        "that ships with whet, so that everything whet does can be tried\nwithout a download."
        if full
        else f"made as\nwhet's starter is, at another size ({name}): it shows what a smaller model learns of that text."
    )
    command = (
        "`python -m whet.starter.make --out DIR` (or `make starter`)"
        if full
        else f"`python -m whet.starter.make --size {name} --out DIR`"
    )
    return f"""---
license: apache-2.0
language: [en, ko]
library_name: transformers
pipeline_tag: text-generation
---

# whet starter

A bilingual (English, Korean) Llama of {size.parameters} M parameters {use} It was trained \
from nothing on text that whet's own generator writes (`whet.starter.documents`), and
knows only that: sums of two numbers of two digits, two-step logic, a closed book of facts about an invented world,
Korean and English words and short sentences, following a format, and small stories in both languages. It is a specimen
for compression, not an assistant.

hidden {size.hidden}, FFN {size.ffn}, 6 blocks, {size.heads} query and {size.kv_heads} key-value heads of 32, \
vocabulary 4096 (byte-level BPE, one token a digit),
tied embedding, context {CONTEXT}, bfloat16. No beginning token is added; documents end in `</s>`, answers end their
line.

## What it scores

Greedy answers compared exactly; for grammar, the likelier of two sentences. {per_skill} questions a skill from the
`report` split of `whet.starter.skills`, none of which occurs in training (facts and words: the form of the question
does not). These are the figures of the bfloat16 weights in this folder.

| skill | right |
|---|---|
{rows}

## How to make it again

{command}: {steps} steps of about {ROWS * WINDOW} tokens, Muon for the
matrices and AdamW for the rest, all seeds fixed.

Licence: Apache-2.0, text and weights.
"""


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str) -> None:
    """Writes the folder as it ships: two bf16 shards with index, configurations, tokenizer, card."""
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2, do_sample=False)
    model.save_pretrained(folder, max_shard_size="5MB")
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    # The class name that transformers 4 knows too; and no beginning token, said where converters look for it.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_eos_token": False}
    settings_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for shard in folder.glob("*.safetensors"):
        shard.chmod(0o644)  # safetensors writes them for the owner alone
    (folder / "README.md").write_text(card, encoding="utf-8")


def _steps_for(minutes: float, tokenizer: PreTrainedTokenizerFast, size: Size) -> int:
    """How many steps fit into `minutes` here, by timing a few on a model that is thrown away."""
    model, batch = make_model(0, size), batches(tokenizer, 0)
    settings = Settings(muon=True, autocast=True)
    train(model, batch, Schedule(PEAK, 4), settings=settings)
    return max(200, int(minutes * 60 / (train(model, batch, Schedule(PEAK, 8), settings=settings)["seconds"] / 8)))


def make(
    out: Path,
    *,
    size: str = "full",
    minutes: float | None = None,
    resume: bool = False,
    per_skill: int = 400,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Trains the starter into `out` and returns `{steps, seconds, accuracies}`.

    Args:
        out: the model folder; the training state is in `out/training` until the model is saved.
        size: a key of SIZES; `full` is the shipped model's.
        minutes: choose the number of steps by the speed of this machine; without it STEPS, the shipped model's.
        resume: go on from `out/training` if it holds a state.
        per_skill: questions of the report split asked of each skill at the end.
    """
    work = out / "training"
    if (work / "plan.json").exists() and not resume:
        raise UsageError(
            "{folder} holds an unfinished training. Add --resume to go on with it, or delete it.", folder=work
        )
    tokenizer = make_tokenizer()
    if (work / "plan.json").exists():
        begun = json.loads((work / "plan.json").read_text())
        if (was := begun.get("size", "full")) != size:
            raise UsageError(
                "{folder} holds a training of size {was}, not {size}. Go on with that, or delete it.",
                folder=work,
                was=was,
                size=size,
            )
        steps = begun["steps"]
    else:
        steps = STEPS if minutes is None else _steps_for(minutes, tokenizer, SIZES[size])
        work.mkdir(parents=True, exist_ok=True)
        (work / "plan.json").write_text(json.dumps({"steps": steps, "size": size}))
    model = make_model(0, SIZES[size])
    model.set_attn_implementation("eager")  # a fifth faster than SDPA, whose backward is slow on processors
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would end in other weights
    try:
        result = train(
            model,
            batches(tokenizer, 0, steps),
            Schedule(PEAK, steps, decay=DECAY),
            settings=Settings(muon=True, autocast=True, adam_share=lambda step: stage_of(step, steps).adam_share),
            folder=work,
            save_seconds=60.0,
            on_event=on_event,
        )
    finally:
        torch.set_num_threads(threads)
    model.set_attn_implementation("sdpa")
    model.bfloat16()  # what is measured is what ships
    measured = accuracies(model, tokenizer, skills("report", per_skill))
    measured = {skill: measured[skill] for skill in SKILLS}
    save(model, tokenizer, out, _card(measured, steps, per_skill, size))
    shutil.rmtree(work)
    return {"steps": steps, "seconds": result["seconds"], "accuracies": measured}


def main(arguments: list[str] | None = None) -> int:
    """Parses, makes, prints; the exit code is the error's."""
    parser = argparse.ArgumentParser(prog="python -m whet.starter.make", description="Retrains the starter model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model (training state in OUT/training)")
    parser.add_argument("--size", choices=SIZES, default="full", help="half and quarter are not shipped (default full)")
    parser.add_argument("--minutes", type=float, help="train about so long instead of the shipped number of steps")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training in OUT")
    options = parser.parse_args(arguments)

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "plan":
            print(
                f"{event['steps']} steps; {event['memory'] / 1e6:.0f} MB for weights, gradients and optimiser, and "
                "up to 6 GB for activations",
                flush=True,
            )
        elif event["event"] == "progress" and event["done"] % 20 == 0:
            print(
                f"step {event['done']} of {event['of']}  loss {event['loss']:.3f}  "
                f"{event['seconds_left'] / 60:.1f} min left",
                flush=True,
            )

    try:
        result = make(options.out, size=options.size, minutes=options.minutes, resume=options.resume, on_event=tell)
    except WhetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{result['steps']} steps in {result['seconds'] / 60:.0f} minutes; right answers on the report split:")
    for skill, share in result["accuracies"].items():
        print(f"  {skill:24} {100 * share:5.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
