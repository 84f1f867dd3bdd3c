"""What `whet choose` says, in English and Korean: a part of the table in `whet.cli.phrases`."""

from __future__ import annotations

CHOOSE: dict[str, tuple[str, str]] = {
    "choose.title": ("At the same bytes (* the one to take)", "같은 바이트에서(* 추천)"),
    "choose.model": ("model", "모델"),
    "choose.bytes": ("weights", "가중치"),
    "choose.quality": ("mean accuracy", "평균 정확도"),
    "choose.bits": ("bits a byte", "바이트당 비트"),
    "choose.behind": ("the best is ahead by", "최고 모델과의 차이"),
    "choose.time": ("ms a token", "토큰당 ms"),
}
