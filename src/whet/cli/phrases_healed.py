"""What the command line says of `whet heal`."""

from __future__ import annotations

HEALED: dict[str, tuple[str, str]] = {
    "healed.healed": ("The skills are back: {reason}.", "능력을 되찾았습니다: {reason}."),
    "healed.better": ("Better, and not all the way: {reason}.", "나아졌지만 다 되찾지는 못했습니다: {reason}."),
    "healed.rolled back": (
        "Rolled back, nothing was written: {reason}.",
        "되돌렸습니다. 아무것도 만들지 않았습니다: {reason}.",
    ),
    "healed.unhurt": ("Nothing was written: {reason}.", "아무것도 만들지 않았습니다: {reason}."),
    "healed.title": ("Skills, as shares of the original's", "능력(원본 대비)"),
    "healed.skill": ("skill", "능력"),
    "healed.before": ("before", "전"),
    "healed.after": ("after", "후"),
    "healed.change": ("change of the accuracy", "정답률 변화"),
    "healed.practised": ("{skill} (practised)", "{skill} (연습함)"),
    "healed.problems": (
        "{skill}: {count} problems that the original solved, {failed} of which the lighter model did not",
        "{skill}: 원본이 푼 문제 {count}개, 그중 경량본이 다르게 답한 문제 {failed}개",
    ),
    "stage.solve": ("solving problems with the original", "원본이 문제에 답하는 중"),
    "stage.fail": ("finding problems that it fails", "경량본이 틀리는 문제 찾는 중"),
    "stage.skills, healed": ("asking the questions again", "문항에 다시 답하는 중"),
}
