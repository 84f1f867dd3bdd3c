"""What the command line calls speed and memory, of models as they are and packed in memory."""

from __future__ import annotations

SPEED: dict[str, tuple[str, str]] = {
    "prefill": ("prefill, tokens/s", "프리필 (토큰/초)"),
    "decode": ("decode, tokens/s", "디코드 (토큰/초)"),
    "load": ("load time", "불러오는 시간"),
    "memory": ("peak memory", "최대 메모리"),
    "packed.kl": ("packed: KL to decoded", "압축 유지: 디코딩한 모델과의 KL"),
    "packed.top1": ("packed: same first choice", "압축 유지: 1순위 일치"),
    "packed.prefill": ("packed: prefill, tokens/s", "압축 유지: 프리필 (토큰/초)"),
    "packed.decode": ("packed: decode, tokens/s", "압축 유지: 디코드 (토큰/초)"),
    "packed.memory": ("packed: peak memory", "압축 유지: 최대 메모리"),
}
