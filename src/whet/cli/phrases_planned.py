"""What the command line says of plans, of what is fast on this machine, and of packed folders."""

from __future__ import annotations

PLANNED: dict[str, tuple[str, str]] = {
    "plan.schemes": ("Schemes", "형식"),
    "plan.part": ("part", "부분"),
    "plan.scheme": ("how many × scheme", "개수 × 형식"),
    "plan.predicted": ("Predicted", "예측"),
    "plan.bits": ("bits a parameter", "파라미터당 비트"),
    "plan.bytes": ("bytes", "크기"),
    "plan.this": ("this plan", "이 계획"),
    "plan.uniform": (
        "best uniform of no more bytes: {scheme}, embedding {embed}",
        "같은 크기 이하에서 가장 좋은 한 가지 형식: {scheme}, 임베딩 {embed}",
    ),
    "plan.equal": (
        "smallest uniform of no more KL: {scheme}, embedding {embed}",
        "같은 KL 이하에서 가장 작은 한 가지 형식: {scheme}, 임베딩 {embed}",
    ),
    "plan.time": (
        "A token is predicted to take {predicted} ms in {runtime} here ({speedup} × the 16-bit file){limit}.",
        "이 컴퓨터의 {runtime}에서 토큰 하나에 {predicted} ms 예측(16비트 파일의 {speedup}배 속도){limit}.",
    ),
    "plan.limit": ("; asked for at most {limit} ms", ", 요청한 상한은 {limit} ms"),
    "made.time": (
        "Timed: {then} ms a token beside the same reference ({off} off the prediction), {now} ms just now.",
        "측정: 같은 기준으로 토큰당 {then} ms(예측과 {off} 차이), 지금은 {now} ms.",
    ),
    "stage.hardware": ("timing runtimes and formats", "런타임과 형식의 속도 측정하는 중"),
    "stage.shapes": ("timing every shape", "모양별 속도 측정하는 중"),
    "hardware.estimate": (
        "Measuring takes about {time}, where it was not measured before.",
        "측정에 약 {time} 걸립니다. 전에 측정한 것이 있으면 그것을 씁니다.",
    ),
    "hardware.cached": (
        "measured before, kept in {file} (--fresh measures again)",
        "전에 측정한 값: {file}(--fresh로 다시 측정)",
    ),
    "hardware.threads": ("threads", "스레드"),
    "hardware.read": ("read", "읽기"),
    "hardware.pairs": (
        "Runtimes and formats, batch 1, tokens/s (*: added up from its matrices)",
        "런타임과 형식, 배치 1, 토큰/초(*: 행렬 시간을 더한 값)",
    ),
    "hardware.bits": ("bits a weight", "가중치당 비트"),
    "hardware.decode": ("decode", "디코드"),
    "hardware.spread": ("of rounds", "회차별 범위"),
    "hardware.prefill": ("prefill", "프리필"),
    "hardware.share": ("of memory's speed", "메모리 속도 대비"),
    "levels": ("Precisions", "정밀도"),
    "levels.bits": ("bits", "비트"),
    "levels.top1": ("same first choice", "첫 선택 일치"),
    "levels.adds": ("adds", "더하는 크기"),
    "levels.alone": ("alone", "따로 만들 때"),
    "stage.nest": ("joining precisions", "여러 정밀도를 하나로 합치는 중"),
    "stage.pack": ("packing", "묶는 중"),
    "stage.unpack": ("unpacking", "압축 해제하는 중"),
    "packed": ("Written: {out}", "만든 파일: {out}"),
    "packed.next": ("The same folder again: {command}", "같은 폴더로 되돌리려면: {command}"),
    "packed.title": ("What was gained", "줄어든 크기"),
    "packed.before": ("before", "전"),
    "packed.after": ("after", "후"),
    "packed.whole": ("all files", "파일 전체"),
    "packed.other": ("other bytes", "나머지"),
    "unpacked": (
        "Written to {out}: {files} files, {size}, the same bytes.",
        "{out}에 파일 {files}개({size})를 원래 바이트 그대로 만들었습니다.",
    ),
    "hardware.speedup": ("× own 16 bits", "자체 16비트 대비"),
}
