"""A random Llama or Mixtral of any size in bf16, written shard by shard: for measuring memory and time, not quality.

The default is TinyLlama's shape (1.1 B parameters). Weights are normal with a standard deviation of 0.02, residual
projections smaller by sqrt(2 * blocks), and a few channels have norm weights several times the others, as trained
models have: so inputs of linears are correlated and uneven and no second moment is near the identity. Comes with a
byte-level tokenizer that reads any text, and, on request, a text of invented words to calibrate on.
With `--experts` it is a Mixtral with two of them a token; the first `--starved` of every block are never chosen: the
router ranks them last by a channel that is alike in all tokens. `--experts 8 --starved 2 --hidden 1024 --ffn 3584
--blocks 10 --heads 16` is about 1 B parameters.
Peak memory is one shard and one tensor in fp32 (under 1 GB at the default sizes).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, MixtralConfig, PreTrainedTokenizerFast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--ffn", type=int, default=5632)
    parser.add_argument("--blocks", type=int, default=22)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--experts", type=int, default=0, help="a Mixtral with so many experts a block")
    parser.add_argument("--starved", type=int, default=0, help="experts of every block that no token is sent to")
    parser.add_argument("--blocks-per-shard", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", help="also write a calibration text to this file")
    parser.add_argument("--characters", type=int, default=400_000, help="length of that text")
    args = parser.parse_args()
    if args.starved > max(0, args.experts - 2):
        parser.error("--starved leaves fewer than two experts to choose from")
    kind = MixtralConfig if args.experts else LlamaConfig
    sparse = {"num_local_experts": args.experts, "sliding_window": None} if args.experts else {}
    config = kind(
        hidden_size=args.hidden,
        intermediate_size=args.ffn,
        num_hidden_layers=args.blocks,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        vocab_size=args.vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["MixtralForCausalLM" if args.experts else "LlamaForCausalLM"],
        **sparse,
    )
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    write_tokenizer(folder, args.seed, min(args.vocabulary, 4096))
    parameters = write_weights(folder, config, args.blocks_per_shard, args.seed, args.starved)
    if args.text:
        Path(args.text).write_text(invented_text(args.seed + 1, args.characters), encoding="utf-8")
    print(f"{folder}: {parameters / 1e9:.3f} billion parameters in bf16, {args.blocks} blocks")


def write_weights(
    folder: Path, config: LlamaConfig | MixtralConfig, blocks_per_shard: int, seed: int, starved: int = 0
) -> int:
    """Write the shards and their index; returns the number of parameters."""
    generator = torch.Generator().manual_seed(seed)
    hidden, ffn = config.hidden_size, config.intermediate_size
    kv = hidden // config.num_attention_heads * config.num_key_value_heads
    count = getattr(config, "num_local_experts", 0)
    experts = [f"block_sparse_moe.experts.{e}" for e in range(count)]
    loud = torch.randperm(hidden, generator=generator)[: max(1, hidden // 200)]

    def normal(rows: int, columns: int, deviation: float = 0.02) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(deviation).bfloat16()

    def norm() -> torch.Tensor:
        weight = 1 + 0.1 * torch.randn(hidden, generator=generator)
        weight[loud] *= 6
        return weight.bfloat16()

    def block(i: int) -> dict[str, torch.Tensor]:
        residual = 0.02 / (2 * config.num_hidden_layers) ** 0.5
        shapes = {
            "self_attn.q_proj": (hidden, hidden, 0.02),
            "self_attn.k_proj": (kv, hidden, 0.02),
            "self_attn.v_proj": (kv, hidden, 0.02),
            "self_attn.o_proj": (hidden, hidden, residual),
        }
        for name in experts or ["mlp"]:
            gate, up, down = ("w1", "w3", "w2") if experts else ("gate_proj", "up_proj", "down_proj")
            shapes |= {f"{name}.{gate}": (ffn, hidden, 0.02), f"{name}.{up}": (ffn, hidden, 0.02)}
            shapes[f"{name}.{down}"] = (hidden, ffn, residual)
        tensors = {f"model.layers.{i}.{name}.weight": normal(*shape) for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{name}.weight"] = norm()
        if experts:
            router = normal(len(experts), hidden)
            router[:, 0] = 0.0
            router[:starved, 0] = -4.0
            tensors[f"model.layers.{i}.block_sparse_moe.gate.weight"] = router
        return tensors

    embedding = normal(config.vocab_size, hidden)
    if starved:
        embedding[:, 0] = 0.2  # ten times the others' deviation, in every token

    starts = range(0, config.num_hidden_layers, blocks_per_shard)
    count = len(starts) + 2
    index: dict[str, str] = {}
    total = 0

    def write(number: int, tensors: dict[str, torch.Tensor]) -> None:
        nonlocal total
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(tensors, name))
        total += sum(tensor.numel() for tensor in tensors.values())

    write(1, {"model.embed_tokens.weight": embedding})
    for number, start in enumerate(starts, 2):
        shard: dict[str, torch.Tensor] = {}
        for i in range(start, min(start + blocks_per_shard, config.num_hidden_layers)):
            shard |= block(i)
        write(number, shard)
    write(count, {"model.norm.weight": norm(), "lm_head.weight": normal(config.vocab_size, hidden)})
    body = {"metadata": {"total_size": 2 * total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return total


def write_tokenizer(folder: Path, seed: int, size: int) -> None:
    """A byte-level BPE trained on invented words: every text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([invented_text(seed, 500_000)], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(folder)


def invented_text(seed: int, characters: int) -> str:
    """Sentences of invented words whose frequencies fall off like those of a language; paragraphs of ten."""
    chance = random.Random(seed)
    letters = random.Random(0)  # one language for every seed
    syllables = [a + b for a in (*"bdfgklmnprstvz", "st", "tr", "pl") for b in (*"aeiou", "ai", "ou", "an", "er")]
    words = ["".join(letters.choices(syllables, k=letters.randint(1, 4))) for _ in range(6000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    sentences: list[str] = []
    length = 0
    while length < characters:
        sentence = " ".join(chance.choices(words, weights, k=chance.randint(4, 18))).capitalize() + "."
        sentences.append(sentence)
        length += len(sentence) + 1
    return "\n\n".join(" ".join(sentences[i : i + 10]) for i in range(0, len(sentences), 10)) + "\n"


if __name__ == "__main__":
    main()
