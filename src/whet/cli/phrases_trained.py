"""What the command line says of adapters: of `whet tune` and `whet merge`."""

from __future__ import annotations

TRAINED: dict[str, tuple[str, str]] = {
    "dynamic.active": (
        "{share} of the channels: {used} in use, {stored} stored; KL {kl} on held-out text, {other} with "
        "channels that another prompt chose, {static} with one choice for all prompts.",
        "채널의 {share}: 사용 {used}, 저장 {stored}. 학습에 쓰지 않은 텍스트의 KL {kl}, 다른 프롬프트가 고른 "
        "채널로는 {other}, 모든 프롬프트에 같은 채널로는 {static}.",
    ),
    "dynamic.exits": (
        "From a probability of {threshold} on a token leaves: {agreement} of held-out tokens are the whole model's, "
        "{layers} of {of} blocks are read for a token, and {reads} of the bytes, with the head at every exit.",
        "확률 {threshold} 이상인 토큰은 일찍 나갑니다. 학습에 쓰지 않은 토큰의 {agreement}이(가) 전체 모델과 같고, "
        "토큰당 블록 {of}개 중 {layers}개를 읽으며, 출구마다 읽는 출력층까지 바이트의 {reads}을(를) 읽습니다.",
    ),
    "dynamic.next": ("Use it: {command}", "사용하려면: {command}"),
    "tuned": (
        "{what} for {steps} steps: held-out {unit} {before} before, {after} after (gained {gain}).",
        "{what}, {steps}스텝: 학습에 쓰지 않은 텍스트의 {unit} 학습 전 {before}, 후 {after} (차이 {gain}).",
    ),
    "tuned.parameters": ("{count} parameters trained", "학습한 파라미터 {count}개"),
    "tuned.loss": ("loss a token", "토큰당 손실"),
    "tuned.kl": ("KL to the teacher", "교사 모델과의 KL"),
    "tuned.next": ("Make it a part of the model: {command}", "모델에 병합하려면: {command}"),
    "merged.weights": ("The adapter was added to the weights.", "어댑터를 가중치에 더했습니다."),
    "merged.exact": (
        "The adapter went into the zeros of the codes, exactly; the codes are as they were.",
        "어댑터를 코드의 영점에 정확히 더했습니다. 코드는 그대로입니다.",
    ),
    "merged.beside": (
        "The adapter is a part of the folder, beside the codes.",
        "어댑터를 코드 옆에 두었습니다. 폴더의 일부입니다.",
    ),
    "merged.round": ("Base and adapter were rounded again.", "기반 모델과 어댑터를 더해 다시 양자화했습니다."),
    "merged.dense": (
        "Base and adapter as weights that are not quantized.",
        "기반 모델과 어댑터를 더해 양자화하지 않은 가중치로 만들었습니다.",
    ),
    "merged.logits": (
        "Largest difference of logits from base and adapter: {difference}",
        "기반 모델에 어댑터를 붙인 것과 로짓의 최대 차이: {difference}",
    ),
}
