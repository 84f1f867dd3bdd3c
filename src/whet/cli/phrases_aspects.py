"""What the command line says while aspects of a comparison are measured."""

from __future__ import annotations

ASPECT_STAGES = {
    "stage.belief": ("reading what it believes", "내부 판단을 읽는 중"),
    "stage.susceptibility": ("asking under other prompts", "다른 프롬프트로 묻는 중"),
    "stage.refusal": ("asking what may be refused", "거절 여부를 묻는 중"),
    "stage.thinking": ("following worked answers", "풀이 단계를 따라가는 중"),
}
