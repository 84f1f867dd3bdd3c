"""What the command line says of `whet fit-context`."""

from __future__ import annotations

CONTEXT: dict[str, tuple[str, str]] = {
    "context.title": (
        "Keys and values, beside weights of {weights}: {room} of room",
        "가중치 {weights} 외에 {room}이 남습니다. 키와 값을 담는 자료형:",
    ),
    "context.kept": ("kept in, by layer", "층별 자료형"),
    "context.bytes": ("cache", "캐시"),
    "context.fits": ("fits", "들어감"),
    "context.most": ("most tokens that fit", "들어가는 최대 토큰"),
    "context.yes": ("yes", "예"),
    "context.no": ("no", "아니요"),
}
