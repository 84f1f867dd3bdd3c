"""Two processes that train one model end where one process ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from whet.errors import UsageError
from whet.train import Schedule, train

TOGETHER = """
import sys
from pathlib import Path
import torch
sys.path[:0] = [{tests!r}]
from accelerate import Accelerator
from test_ranks import SCHEDULE, held_out, model_of_two_blocks, parts
from whet.train import Schedule, train

torch.set_num_threads(1)
out = Path(sys.argv[1])
for stop in (5, None):  # stopped and gone on with
    model = model_of_two_blocks()
    result = train(
        model, parts, SCHEDULE, accelerator=Accelerator(cpu=True), folder=out / "run", judge=held_out, judge_every=4,
        stop_after=stop,
    )
if Accelerator().is_main_process:
    torch.save({{"weights": model.state_dict(), "loss": result["loss"]}}, out / "done.pt")
"""


SCHEDULE = Schedule(5e-3, 10, warmup=3)


def model_of_two_blocks() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=2, tie_word_embeddings=True, **sizes))


def parts(step: int) -> list[dict[str, torch.Tensor]]:
    """Four batches of a step that count differently."""
    rng = torch.Generator().manual_seed(step)
    ids = torch.randint(3, 64, (8, 5), generator=rng).repeat(1, 5)[:, :21]
    weights = torch.ones(8, 20)
    weights[:3, 8:] = 0
    return [{"input_ids": ids[i : i + 2], "weights": weights[i : i + 2]} for i in range(0, 8, 2)]


def held_out(model: Any) -> torch.Tensor:
    ids = torch.cat([part["input_ids"] for part in parts(99)])
    chances = model(input_ids=ids[:, :-1]).logits.log_softmax(-1)
    return -chances.gather(2, ids[:, 1:, None])[..., 0].mean(-1)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = TOGETHER.format(tests=str(Path(__file__).parent))
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    alone = model_of_two_blocks()
    result = train(alone, parts, SCHEDULE, judge=held_out, judge_every=4)
    found = torch.load(tmp_path / "done.pt")
    assert found["loss"] == pytest.approx(result["loss"], rel=1e-4)
    for name, weight in alone.state_dict().items():
        assert torch.allclose(weight, found["weights"][name], atol=1e-4), name


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_what_splits_the_weights_is_refused_by_name(kind: str) -> None:
    accelerator = SimpleNamespace(distributed_type=SimpleNamespace(value=kind), num_processes=2, is_main_process=True)
    with pytest.raises(UsageError, match=f"splits the model's weights over processes .{kind}."):
        train(model_of_two_blocks(), parts, SCHEDULE, accelerator=accelerator)
