"""What the command line says while aspects of a comparison are measured."""

from __future__ import annotations

ASPECT_STAGES = {
    "stage.belief": ("reading what it believes", "내부 판단을 읽는 중"),
    "stage.susceptibility": ("asking under other prompts", "다른 프롬프트로 묻는 중"),
    "stage.refusal": ("asking what may be refused", "거절 여부를 묻는 중"),
    "stage.energy": ("measuring energy", "에너지를 측정하는 중"),
    "stage.generation": ("letting both write", "두 모델로 텍스트를 쓰는 중"),
    "stage.context": ("looking at long context", "긴 컨텍스트를 보는 중"),
    "stage.rounding": ("asking what only rounding changes", "양자화 뒤에만 나타나는 답을 찾는 중"),
    "stage.thinking": ("following worked answers", "풀이 단계를 따라가는 중"),
}
