"""What the command line says, in English and Korean, in one table.

`say(key, **values)` answers in the language of `WHET_LANG`, else of the locale; anything but Korean is English.
Notes and errors are messages of the rooms below; `sentence` says them in the user's language.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from whet.cli.phrases_parts import PARTS
from whet.korean import with_particles
from whet.messages import Message, in_language

PHRASES: dict[str, tuple[str, str]] = {
    **PARTS,
    # general
    "error": ("error", "오류"),
    "warning": ("warning", "경고"),
    "note": ("note", "알림"),
    "internal": (
        "Unexpected {kind}: {message}. This is a fault of whet, not of your input. "
        "To see where, run again with --debug.",
        "예상하지 못한 {kind}: {message}. 입력이 아니라 whet의 버그입니다. "
        "--debug를 붙여 다시 실행하면 어디에서 났는지 알 수 있습니다.",
    ),
    "try_help": ("See `{command} --help`.", "`{command} --help`를 보십시오."),
    "did_you_mean": ("Did you mean {names}?", "혹시 {names}입니까?"),
    "stopped": ("Stopped.", "중단했습니다."),
    "stopped_resume": ("Stopped. Go on with: {command}", "중단했습니다. 이어서 하려면: {command}"),
    "yes": ("yes", "예"),
    "no": ("no", "아니요"),
    # --help
    "help.usage": ("Usage: ", "사용법: "),
    "help.arguments": ("Arguments", "인자"),
    "help.options": ("Options", "옵션"),
    "help.commands": ("Commands", "명령"),
    "help.default": ("[default: {{}}]", "[기본값: {{}}]"),
    "help.example": ("Example:", "예:"),
    "help.required": ("[required]", "[필수]"),
    # progress
    "left": ("{time} left", "{time} 남음"),
    "seconds": ("{seconds} s", "{seconds}초"),
    "minutes": ("{minutes} min {seconds} s", "{minutes}분 {seconds}초"),
    "hours": ("{hours} h {minutes} min", "{hours}시간 {minutes}분"),
    "percent": ("{percent} %", "{percent} %"),
    "stage.read": ("reading the original", "원본 읽는 중"),
    "stage.write": ("writing text with the original", "원본으로 텍스트 생성하는 중"),
    "stage.compress": ("compressing", "압축하는 중"),
    "stage.transform": ("finding transforms", "변환 찾는 중"),
    "stage.learn": ("learning rotations", "회전 학습하는 중"),
    "stage.propose": ("finding what transforms may help", "도움이 될 변환 찾는 중"),
    "stage.follow": ("measuring what each transform changes", "변환마다 달라지는 정도 측정하는 중"),
    "stage.judge": ("judging transforms by the whole", "변환을 모델 전체에서 판정하는 중"),
    "stage.curvature": ("measuring what errors cost", "오차의 영향 측정하는 중"),
    "stage.tune": ("tuning scales", "스케일 조율하는 중"),
    "stage.verify": ("verifying on text", "텍스트로 검증하는 중"),
    "stage.marginal": ("measuring what each part loses", "부분별 손실 측정하는 중"),
    "stage.depth": ("choosing blocks", "뺄 블록을 고르는 중"),
    "stage.turn": ("finding the stream's directions", "잔차 스트림의 방향 찾는 중"),
    "stage.shape": ("trying shapes", "모양을 시험하는 중"),
    "stage.sort": ("sorting channels and heads", "채널과 헤드를 중요도순으로 정렬하는 중"),
    "stage.prune": ("pruning", "가지치기하는 중"),
    "stage.draw": ("drawing the teacher's targets", "교사 모델의 예측을 뽑아 저장하는 중"),
    "stage.train": ("training", "학습하는 중"),
    "stage.calibrate": ("calibrating exits", "출구를 보정하는 중"),
    "stage.cut": ("cutting tokens", "토큰을 줄이는 중"),
    "stage.prove": ("proving", "검증하는 중"),
    "stage.finish": ("finishing and proving", "마무리하고 검증하는 중"),
    "stage.plan": ("planning", "계획 세우는 중"),
    "stage.skills": ("asking questions", "문항에 답하는 중"),
    "stage.score": ("scoring every part", "부분별로 점수 매기는 중"),
    "stage.divergence": ("comparing on text", "텍스트로 비교하는 중"),
    "stage.skills, original": ("skills of the original", "원본의 능력 측정하는 중"),
    "stage.skills, lighter": ("skills of the lighter", "경량본의 능력 측정하는 중"),
    "stage.speed": ("timing side by side", "번갈아 속도 측정하는 중"),
    "stage.memory": ("measuring memory", "메모리 측정하는 중"),
    "stage.verify files": ("reading files", "파일 읽는 중"),
    "stage.tasks": ("running tasks", "과제 실행하는 중"),
    "unit.embedding": ("embedding", "임베딩"),
    "unit.head": ("head", "출력층"),
    "unit.rest": ("rest", "나머지"),
    "unit.block": ("block {number}", "블록 {number}"),
    "unit.block forward": ("block {number}, forward", "블록 {number}, 순전파"),
    "unit.block backward": ("block {number}, backward", "블록 {number}, 역전파"),
    "plan": (
        "this takes about {time}, {memory} of memory, {disk} of disk",
        "약 {time}, 메모리 {memory}, 디스크 {disk} 필요",
    ),
    # run and status
    "run.steps": ("Steps", "단계"),
    "run.step": ("step", "단계"),
    "run.outcome": ("outcome", "결과"),
    "run.tries": ("tries", "시도"),
    "run.bytes": ("bytes", "바이트"),
    "run.time": ("time", "시간"),
    "run.pass": ("Every gate that was asked for holds.", "요청한 게이트를 모두 통과했습니다."),
    "run.fail": (
        "A gate does not hold. The run ended with the best model so far.",
        "통과하지 못한 게이트가 있습니다. 그때까지 가장 좋은 모델로 마쳤습니다.",
    ),
    "run.inconclusive": (
        "There is not enough evidence for a gate. More questions or text would tell.",
        "게이트를 판정할 근거가 모자랍니다. 문항이나 텍스트를 늘리면 판정할 수 있습니다.",
    ),
    "outcome.kept": ("kept", "채택"),
    "outcome.skipped": ("skipped", "건너뜀"),
    "outcome.stopped": ("gate failed, rolled back", "게이트 실패, 되돌림"),
    "outcome.undecided": ("not enough evidence, rolled back", "근거 부족, 되돌림"),
    "outcome.not reached": ("not reached", "실행 안 함"),
    "outcome.stopped run": ("stopped", "중단됨"),
    "outcome.waiting": ("waiting", "대기"),
    "outcome.running": ("running", "진행 중"),
    "verify.pass": ("All {count} files are what was written.", "파일 {count}개가 모두 기록된 그대로입니다."),
    "verify.fail": (
        "{count} of {of} files differ from what was written. Copy or download the folder again, or make it anew.",
        "파일 {of}개 중 {count}개가 기록과 다릅니다. 폴더를 다시 복사하거나 내려받거나, 새로 만드십시오.",
    ),
    "verify.title": ("Files that differ", "기록과 다른 파일"),
    "verify.file": ("file", "파일"),
    "verify.state": ("what", "상태"),
    "verify.listed": ("listed", "기록"),
    "verify.found": ("found", "실제"),
    "verify.missing": ("missing", "없음"),
    "verify.outside": ("a link out of the folder", "폴더 밖으로 가는 링크"),
    "verify.size": ("of another size", "크기가 다름"),
    "verify.changed": ("changed", "내용이 바뀜"),
    "verify.unlisted": ("weights that whet.json does not list", "whet.json에 없는 가중치"),
    "status.running": ("{out} is being written.", "{out}을(를) 만드는 중입니다."),
    "status.stopped": ("The run in {out} was stopped.", "{out}을(를) 만드는 실행이 중단되어 있습니다."),
    "status.finished": ("{out} is finished.", "{out}을(를) 모두 만들었습니다."),
    # compress
    "nothing": ("Nothing was run. Comparing would take:", "아무것도 실행하지 않았습니다. 비교에 필요한 것:"),
    "made": ("Made {out}", "{out}을(를) 만들었습니다"),
    "pruned": (
        "{share} of the blocks' parameters went. What stays: {what}.",
        "블록 파라미터의 {share}를 덜어냈습니다. 남은 것: {what}.",
    ),
    "distilled": (
        "Trained for {steps} steps. KL to the teacher on held-out text: {before} before, {after} now.",
        "{steps}단계 학습했습니다. 학습에 쓰지 않은 텍스트에서 교사 모델과의 KL: 전 {before}, 지금 {after}.",
    ),
    "stays.layers": ("{count} blocks", "블록 {count}개"),
    "stays.channels": ("{count} channels a block", "블록마다 채널 {count}개"),
    "stays.heads": ("{count} key and value heads a block", "블록마다 키·값 헤드 {count}개"),
    "stays.experts": ("{count} experts a block", "블록마다 전문가 {count}개"),
    "gone.channels": ("{count} of them without feed-forward", "그중 {count}개는 FFN 없음"),
    "gone.heads": ("{count} of them without attention", "그중 {count}개는 어텐션 없음"),
    "stays.hidden": ("{count} directions of the residual stream", "잔차 스트림의 방향 {count}개"),
    "tokens.kept": ("{count} of {of} tokens stay.", "토큰 {of}개 중 {count}개가 남습니다."),
    "lengths": ("How many tokens texts become", "텍스트의 토큰 수"),
    "planned": ("Nothing was written. The run would take:", "아무것도 만들지 않았습니다. 실행에 필요한 것:"),
    "tensors": ("Size", "크기"),
    "sum": ("all tensors", "텐서 전체"),
    "time": ("time, about", "시간 (약)"),
    "effort": ("  with --solver {name}", "  --solver {name}이면"),
    "disk": ("disk", "디스크"),
    "needs": ("Needs", "필요한 것"),
    "foretold": (
        "The plan foretold KL {kl} nats per token at {bits} bits a parameter ({size} of tensors).",
        "계획의 예측: 파라미터당 {bits}비트(텐서 {size})에서 토큰당 KL {kl} nat.",
    ),
    "verified.classes": (
        "On text kept out of calibration: KL of the classes {kl} nats, the same class at {top1} of {count} {of}.",
        "보정에 쓰지 않은 텍스트에서: 클래스 분포의 KL {kl} nat, {of} {count}개 중 {top1}에서 같은 클래스.",
    ),
    "verified.scores": (
        "On text kept out of calibration: scores differ by {difference} of their standard deviation, {order} of pairs "
        "of {count} {of} in the same order.",
        "보정에 쓰지 않은 텍스트에서: 점수 차이가 표준편차의 {difference}, {of} {count}개를 둘씩 비교하면 {order}에서 "
        "같은 순서.",
    ),
    "verified.same": (
        "On text kept out of calibration ({count} {of}) the original's scores do not differ, so they tell nothing.",
        "보정에 쓰지 않은 텍스트({of} {count}개)에서 원본의 점수에 차이가 없어 알 수 있는 것이 없습니다.",
    ),
    "verified.vectors": (
        "On text kept out of calibration: hidden states differ by {error} of their size, cosine of a text's vectors "
        "{cosine}, the same nearest text for {near} of {count} {of}.",
        "보정에 쓰지 않은 텍스트에서: 은닉 상태의 상대 오차 {error}, 텍스트 벡터의 코사인 {cosine}, {of} {count}개 중 "
        "{near}에서 가장 가까운 텍스트가 같음.",
    ),
    "answers.texts": ("texts", "텍스트"),
    "answers.marks": ("starts and ends", "시작·끝 위치"),
    "answers.tokens": ("tokens", "토큰"),
    "classes.kl": ("KL of the classes, nats", "클래스 분포의 KL (nat)"),
    "classes.top1": ("the same class", "클래스 일치"),
    "vectors.error": ("relative error of hidden states", "은닉 상태의 상대 오차"),
    "vectors.cosine": ("cosine of a text's vectors", "텍스트 벡터의 코사인"),
    "vectors.neighbours": ("the same nearest text", "가장 가까운 텍스트 일치"),
    "scores.difference": ("difference of scores / their std", "점수 차이 ÷ 표준편차"),
    "scores.order": ("pairs in the same order", "같은 순서인 쌍"),
    "verified": (
        "On text kept out of calibration: KL {kl} nats per token, same first choice {top1}.",
        "보정에 쓰지 않은 텍스트에서: 토큰당 KL {kl} nat, 1순위 토큰 일치 {top1}.",
    ),
    "loads.transformers": (
        "Stock transformers loads it (with compressed-tensors installed).",
        "표준 transformers로 불러올 수 있습니다(compressed-tensors 필요).",
    ),
    "loads.dense": (
        "Whatever loads the original loads it.",
        "원본을 불러올 수 있는 곳이면 어디서나 불러옵니다.",
    ),
    "masked": (
        "Exactly 0: {share} of the weights of {linears} linears.",
        "선형층 {linears}개의 가중치 중 {share}가 정확히 0입니다.",
    ),
    "loads.modelling file": (
        "Stock transformers loads it through its own modelling file (trust_remote_code=True); whet loads it without.",
        "표준 transformers는 폴더의 모델링 파일로 불러오고(trust_remote_code=True), whet은 그 파일 없이 불러옵니다.",
    ),
    "adapter": (
        "Its adapter is a part of it: model = peft.PeftModel.from_pretrained(model, {folder})",
        "어댑터도 이 모델의 일부입니다: model = peft.PeftModel.from_pretrained(model, {folder})",
    ),
    "run_it": ("Run it: {command}", "실행하려면: {command}"),
    "load_it": ("Load it in Python:", "Python에서 불러오려면:"),
    "elastic.title": ("Sizes to cut", "잘라 낼 수 있는 크기"),
    "elastic.size": ("size", "크기"),
    "elastic.layers": ("blocks", "블록"),
    "elastic.channels": ("channels", "채널"),
    "elastic.heads": ("KV heads", "KV 헤드"),
    "elastic.kl_repaired": ("KL with repair", "보정 후 KL"),
    "elastic.next": ("Cut one of them: {command}", "하나를 잘라 내려면: {command}"),
    "next": ("Compare it with the original: {command}", "원본과 비교하려면: {command}"),
    # plan and inspect
    "wrote": ("Written: {files}", "만든 파일: {files}"),
    "gap": (
        "The predicted loss is within {gap} of the best possible.",
        "예측 손실은 가능한 최선과 {gap} 이내로 차이 납니다.",
    ),
    "replay": ("Make it with: {command}", "이 계획대로 만들려면: {command}"),
    "inspect.roles": ("What it is made of", "모델의 구성"),
    "inspect.parameters": ("parameters", "파라미터"),
    "inspect.worth": ("KL if 1 % of the output were noise", "출력의 1 %가 잡음일 때의 KL"),
    "inspect.blocks": ("Block by block", "블록별"),
    "inspect.block": ("block", "블록"),
    "inspect.influence": ("influence", "영향"),
    "inspect.spike": ("largest input over the usual", "평소 입력 대비 최대 입력"),
    "inspect.carried": ("What each block carries, of each skill", "블록별로 능력마다 맡은 비중"),
    "inspect.points": (
        "What it would take and lose for {target}, predicted",
        "{target}용으로 줄일 때의 크기와 손실 (예측)",
    ),
    # demo
    "demo.title": ("The embedded model, made lighter", "내장 모델의 경량화"),
    "demo.how": (
        "Written by `whet demo`: a bilingual Llama, compressed with `{how}` on text "
        "that the project generates, compared on held-out text of the same kind and on skills with exact answers. "
        "Machine: {machine}, threads: {threads}, torch {torch}, transformers {transformers}.",
        "`whet demo`의 결과입니다. 한국어·영어 Llama를 프로젝트가 생성한 텍스트로 보정해 "
        "`{how}`로 압축하고, "
        "같은 종류지만 따로 둔 텍스트와 정답이 있는 능력 문항으로 비교했습니다. "
        "컴퓨터: {machine}, 스레드: {threads}, torch {torch}, transformers {transformers}.",
    ),
    "demo.samples": ("Samples, before and after", "경량화 전후의 예"),
    "demo.stories": ("Stories", "이야기"),
    "demo.prompt": ("prompt", "프롬프트"),
    "demo.expected": ("expected", "정답"),
    "demo.wrote": ("Written: {files}", "만든 파일: {files}"),
    # comparison
    "original": ("original", "원본"),
    "lighter": ("lighter", "경량본"),
    "ratio": ("ratio", "비율"),
    "whole": ("As a whole", "전체"),
    "size": ("size of the folder", "폴더 크기"),
    "size.weights": ("weight files", "가중치 파일"),
    "size.linears": ("– linears", "– 선형층"),
    "size.embedding": ("– embedding", "– 임베딩"),
    "size.head": ("– head", "– 출력층"),
    "size.other": ("– other tensors", "– 나머지 텐서"),
    "size.adapter": ("– adapter", "– 어댑터"),
    "size.tokenizer": ("tokenizer files", "토크나이저 파일"),
    "kl": ("KL per token, nats", "토큰당 KL (nat)"),
    "top1": ("same first choice", "1순위 토큰 일치"),
    "perplexity": ("perplexity", "퍼플렉시티"),
    "prefill": ("prefill, tokens/s", "프리필 (토큰/초)"),
    "decode": ("decode, tokens/s", "디코드 (토큰/초)"),
    "load": ("load time", "불러오는 시간"),
    "memory": ("peak memory", "최대 메모리"),
    "skills": ("Skill by skill", "능력별"),
    "skill": ("skill", "능력"),
    "retention": ("retention (95 %)", "유지율 (95 %)"),
    "flips": ("lost / gained", "잃음 / 얻음"),
    "p": ("p (Holm)", "p (Holm)"),
    "limits": ("Limits", "기준"),
    "limit": ("limit", "기준"),
    "measured": ("measured (95 %)", "측정값 (95 %)"),
    "verdict": ("verdict", "판정"),
    "tasks": ("Tasks", "과제"),
    "metric": ("task and metric", "과제와 지표"),
    "change": ("change, item by item", "문항별로 짝지은 변화"),
    "pass": ("pass", "통과"),
    "fail": ("fail", "실패"),
    "inconclusive": ("inconclusive", "판정 불가"),
    "not judged": ("not judged", "판정 안 함"),
    "verdict.pass": ("Pass: every limit holds.", "통과: 모든 기준을 지켰습니다."),
    "verdict.fail": ("Fail: a limit is broken.", "실패: 지키지 못한 기준이 있습니다."),
    "verdict.inconclusive": (
        "Inconclusive: no limit is broken, but for some the text or the items are too few to tell.",
        "판정 불가: 지키지 못한 기준은 없지만, 텍스트나 문항이 모자라 판정하지 못한 기준이 있습니다.",
    ),
}


def language() -> str:
    """`ko` or `en`: WHET_LANG, else the first locale variable that is set."""
    for variable in ("WHET_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"


def say(key: str, **values: object) -> str:
    """The phrase `key` in the user's language with `values` filled in."""
    return with_particles(PHRASES[key][language() == "ko"].format(**values))


def sentence(message: Any) -> str:
    """A note or an error in the user's language: a message, or what JSON holds of one."""
    return in_language(Message.read(message), language())


def stage_name(stage: str) -> str:
    """A stage of progress in the user's language; one the table does not have stands as it is."""
    key = f"stage.{stage}"
    return say(key) if key in PHRASES else stage


def doing(event: Mapping[str, Any]) -> str:
    """What is going on, of an event of progress: the stage, how far it is, and its unit if it says so."""
    told = f"{stage_name(event['stage'])} {event['done']}/{event['of']}"
    unit = str(event.get("unit") or "")
    number = "".join(letter for letter in unit if letter.isdigit())
    key = "unit." + " ".join(unit.replace(number, "").split() if number else [unit])
    return f"{told} ({say(key, number=number)})" if key in PHRASES else told


def percent(share: float) -> str:
    """Whole percents, rounded down: all of it is done at 100 alone."""
    return say("percent", percent=math.floor(100 * share))


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return say("seconds", seconds=whole)
    if whole < 3600:
        return say("minutes", minutes=whole // 60, seconds=whole % 60)
    return say("hours", hours=whole // 3600, minutes=whole % 3600 // 60)


def size(count: float) -> str:
    """Bytes as people read them, in units of 1000: `9.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
