"""Whether a draft changes answers, and how much faster it makes them.

Three parts. *exact*: greedy answers of the embedded model to prompts of its own curriculum, alone and with a draft of
rounded weights, compared token for token. *sampled*: guesses that are kept when tokens are drawn, by the rejection rule
and by draws that share their random numbers, as `whet serve` does. *speed*: a random model of 110 M parameters whose
last blocks do little, and a draft that lacks them: the less they do, the more guesses are kept.

    python bench/speculative.py --prompts 500
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from whet.engines import drafted
from whet.engines.drafting import Pace
from whet.engines.sampling import draw, shares
from whet.engines.torch import TorchEngine, open_model
from whet.starter import held_out

STARTER = Path(__file__).resolve().parents[1] / "src" / "whet" / "starter" / "whet-starter"


class Always(Pace):
    """Guesses so many tokens, whatever they cost."""

    def choose(self, rows: int) -> int:
        return self.most


def rounded(engine: TorchEngine, bits: int, group: int = 32) -> TorchEngine:
    """The same with its linears rounded to the nearest of 2^bits levels."""
    made = TorchEngine(copy.deepcopy(engine.model), engine.tokenizer, engine.folder)
    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for name, module in made.model.named_modules():
            if isinstance(module, torch.nn.Linear) and "head" not in name:
                w = module.weight.reshape(module.weight.shape[0], -1, group)
                scale = w.abs().amax(-1, keepdim=True).clamp(min=1e-9) / most
                module.weight.copy_(((w / scale).round() * scale).reshape(module.weight.shape))
    return made


def prompts_of(count: int) -> list[str]:
    """Beginnings of texts that the embedded model was not trained on."""
    return [text[: 20 + number % 60] for number, text in enumerate(held_out(0, count))]


def exact(count: int, tokens: int, widths: list[int]) -> None:
    engine = open_model(STARTER, "cpu", "float32")
    print("| draft of the embedded model | prompts | with other tokens | guesses kept |\n|---|---|---|---|")
    prompts = [engine.encode(text) for text in prompts_of(count)]
    assert all(prompts)
    alone = engine.continue_ids(prompts, tokens, past_ends=True)
    for bits in widths:
        steps, drafts = drafted.steppers(engine, rounded(engine, bits), 1, 512)
        drafts.pace = Always(4)
        made = [drafted.write(engine, steps, drafts, ids, tokens, past_ends=True).ids for ids in prompts]
        other = sum(a != b for a, b in zip(alone, made, strict=True))
        kept = drafts.pace.kept / drafts.pace.proposed
        print(f"| {bits} bits, nearest | {len(prompts)} | {other} | {kept:.1%} |", flush=True)


def sampled(count: int, widths: list[int]) -> None:
    """At the places of texts: the share of draws from the draft that the original keeps."""
    engine = open_model(STARTER, "cpu", "float32")
    print(
        "\n| draft | temperature | sum of min(p, q) | shared random numbers | at least (bound) |\n|---|---|---|---|---|"
    )
    batch = [engine.encode(text)[:24] for text in prompts_of(count)]
    for bits in widths:
        draft = rounded(engine, bits)
        for temperature in (0.7, 1.0):
            overlap, same, places = 0.0, 0, 0
            for row, ids in enumerate(batch):
                theirs, mine = (one.logits(torch.tensor([ids]))[0] for one in (engine, draft))
                p, q = shares(theirs, temperature, 1.0), shares(mine, temperature, 1.0)
                overlap += float(torch.minimum(p, q).sum())
                for at in range(len(ids)):
                    one, two = (draw(logits[at], temperature, 1.0, row, at) for logits in (theirs, mine))
                    same += one == two
                places += len(ids)
            a = overlap / places
            print(f"| {bits} bits | {temperature:g} | {a:.3f} | {same / places:.3f} | {a / (2 - a):.3f} |", flush=True)


def twin(near: float, blocks: int = 12, keep: int = 3) -> tuple[TorchEngine, TorchEngine]:
    """A random model of 110 M parameters whose blocks after `keep` write `near` of what others do, and those before."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=blocks,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=32000,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for number, block in enumerate(model.model.layers):
            for linear in (block.self_attn.o_proj, block.mlp.down_proj):
                linear.weight *= (3.0 if number < keep else 3.0 * near) / (2 * blocks) ** 0.5
    small = copy.deepcopy(config)
    small.num_hidden_layers = keep
    draft = LlamaForCausalLM(small).eval()
    draft.load_state_dict(model.state_dict(), strict=False)
    tokenizer = open_model(STARTER, "cpu").tokenizer
    made = [TorchEngine(one, tokenizer, f"{n} blocks") for one, n in ((model, blocks), (draft, keep))]
    for engine in made:
        engine.tokenizer, engine.ends = Numbers(), set()  # type: ignore[assignment]
    return made[0], made[1]


class Numbers:
    """A vocabulary whose tokens are called by their numbers."""

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(32000)}


def speed(tokens: int, nears: list[float]) -> None:
    print(
        "\n| what the last 9 of 12 blocks do | guessed at a time | kept | tokens a second of CPU time | times as fast |"
    )
    print("|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(32000, (12,), generator=generator).tolist() for _ in range(4)]
    for near in nears:
        engine, draft = twin(near)
        steps, drafts = drafted.steppers(engine, draft, 1, 512)
        drafted.write(engine, steps, drafts, prompts[0], tokens, past_ends=True)
        rates: dict[str, list[float]] = {}
        kept: dict[str, float] = {}
        same = True
        for prompt in prompts:
            own = None
            for name, length in (("alone", None), ("2", 2), ("4", 4), ("8", 8), ("as measured", 0)):
                who = None if length is None else drafts
                if length is not None and name not in kept:
                    kept[name] = 0.0
                if length:
                    drafts.pace = Always(length)
                elif length == 0 and not isinstance(drafts.pace, Adaptive):
                    drafts.pace = Adaptive()
                began = time.process_time()  # a clock on the wall counts what other programs take
                done = drafted.write(engine, steps, who, prompt, tokens, past_ends=True)
                seconds = time.process_time() - began
                own = own or done.ids
                same = same and done.ids == own
                rates.setdefault(name, []).append(len(done.ids) / seconds)
                if who is not None:
                    kept[name] += done.kept / max(1, done.proposed) / len(prompts)
        alone = statistics.median(rates["alone"])
        for name, found in rates.items():
            rate = statistics.median(found)
            share = f"{kept[name]:.1%}" if name in kept else "-"
            print(f"| {near:g} of the others | {name} | {share} | {rate:.1f} | {rate / alone:.2f} |", flush=True)
        print(f"| {near:g} of the others | all the same tokens: {same} | | | |", flush=True)


class Adaptive(Pace):
    """`Pace`, told apart from those that are fixed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 3, 2], help="of the embedded model's drafts")
    parser.add_argument(
        "--part", choices=("exact", "sampled", "speed"), nargs="*", default=("exact", "sampled", "speed")
    )
    parser.add_argument("--near", type=float, nargs="*", default=[0.02, 0.1, 0.2])
    asked = parser.parse_args()
    began = time.perf_counter()
    if "exact" in asked.part:
        exact(asked.prompts, asked.tokens, asked.bits)
    if "sampled" in asked.part:
        sampled(min(asked.prompts, 40), asked.bits)
    if "speed" in asked.part:
        speed(2 * asked.tokens, asked.near)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
