"""What the page says, in English and Korean; of plans in `planned_words.py`. The page holds both; its reader chooses.

Sentences that come from elsewhere (notes, reasons) are messages; `Words.sentence` says them.
"""

from __future__ import annotations

import re
from typing import Any

from whet.korean import with_particles
from whet.messages import Message, in_language
from whet.report.planned_words import PLANNED

LANGUAGES = ("en", "ko")

WORDS: dict[str, tuple[str, str]] = {
    **PLANNED,
    # headline
    "title.shrink": ("{name}, {times}× smaller", "{name}, {times}배 가볍게"),
    "title.plan": ("A plan for {name}", "{name}의 계획"),
    "title.scores": ("What {name} carries where", "{name}: 블록별 역할"),
    "title.plain": ("{name}", "{name}"),
    "unnamed": ("the model", "모델"),
    "document": ("{title} · whet", "{title} · whet"),
    "contents": ("On this page", "차례"),
    "theme": ("Colours", "색"),
    "theme.auto": ("Auto", "자동"),
    "theme.light": ("Light", "밝게"),
    "theme.dark": ("Dark", "어둡게"),
    "numbers": ("The numbers behind it", "그림의 수치"),
    # verdict
    "verdict.pass": ("Pass", "통과"),
    "verdict.fail": ("Fail", "실패"),
    "verdict.inconclusive": ("Inconclusive", "판정 불가"),
    "verdict.not judged": ("Not judged", "판정 안 함"),
    "verdict.pass.long": ("Every limit holds.", "모든 기준을 지켰습니다."),
    "verdict.pass.worse": (
        "Every limit holds. What got worse within them is below.",
        "모든 기준을 지켰습니다. 그 안에서 나빠진 것은 아래에 있습니다.",
    ),
    "verdict.fail.long": ("A limit is broken.", "지키지 못한 기준이 있습니다."),
    "verdict.inconclusive.long": (
        "No limit is broken, but for some the text or the items are too few to tell.",
        "지키지 못한 기준은 없지만, 텍스트나 문항이 모자라 판정하지 못한 기준이 있습니다.",
    ),
    "limits": ("Limits", "기준"),
    "limits.table": ("What was asked for, and what was measured", "기준과 측정값"),
    "limit": ("Limit", "기준"),
    "measured": ("Measured", "측정값"),
    "interval": ("95 % interval", "95 % 구간"),
    "verdict": ("Verdict", "판정"),
    "max_kl": ("KL at most {at}", "KL {at} 이하"),
    "min_top1": ("Same first choice at least {at}", "1순위 일치 {at} 이상"),
    "max_difference": ("Difference of scores at most {at}", "점수 차이 {at} 이하"),
    "max_error": ("Error of hidden states at most {at}", "은닉 상태의 오차 {at} 이하"),
    "min_cosine": ("Cosine of the vectors of a text at least {at}", "텍스트 벡터의 코사인 {at} 이상"),
    "min_neighbours": ("Same nearest text at least {at}", "가장 가까운 텍스트 일치 {at} 이상"),
    "min_order": ("Pairs in the same order at least {at}", "같은 순서인 쌍 {at} 이상"),
    "max_ppl_ratio": ("Perplexity ratio at most {at}", "퍼플렉시티 비율 {at} 이하"),
    "min_shrink": ("At least {at} times smaller", "{at}배 이상 작게"),
    "min_retention": ("Every skill keeps at least {at}", "모든 능력의 유지율 {at} 이상"),
    "retention.all": ("by all {count} skill(s)", "{count}개 모두 지킴"),
    "retention.most": ("by {kept} of {count} skill(s)", "{count}개 중 {kept}개가 지킴"),
    # aspects
    "aspects": ("What else was measured", "그 밖의 측정"),
    "aspect.lede": ("Measures {meaning}.", "{meaning}을 봅니다."),
    "aspect.table": ("Figures", "측정값"),
    "at_most": ("at most {at}", "{at} 이하"),
    "at_least": ("at least {at}", "{at} 이상"),
    "worse.aspect": ("{title}: {what} is {value}.", "{title}: {what}, {value}."),
    "aspect.examples": ("Examples", "예시"),
    "aspect.about": ("What to see", "볼 점"),
    "judged": ("Judged by", "판정 기준값"),
    # key figures
    "key.size": ("Size on disk", "디스크 크기"),
    "key.size.of": ("{share} of the original", "원본의 {share}"),
    "key.kl": ("KL to the original", "원본과의 KL"),
    "key.kl.of": ("nats a token; 0 is identical", "토큰당 nat, 0이면 같은 모델"),
    "key.top1": ("Same first choice", "1순위 토큰 일치"),
    "key.top1.of": ("of {tokens} token(s)", "토큰 {tokens}개 중"),
    "key.weakest": ("Weakest skill keeps", "가장 약해진 능력의 유지율"),
    "key.bits": ("Bits a weight", "가중치당 비트"),
    "key.bits.of": ("everything counted", "모든 텐서 포함"),
    "key.predicted": ("Predicted size", "예측 크기"),
    "key.predicted.kl": ("Predicted KL", "예측 KL"),
    "key.predicted.kl.of": ("nats a token, before measuring", "토큰당 nat, 측정 전"),
    "key.budget": ("Budget", "예산"),
    "key.budget.of": ("for {target}", "{target}용"),
    # what got worse
    "worse": ("What got worse", "나빠진 것"),
    "worse.none": (
        "Nothing that was measured got worse by more than its error bar.",
        "측정한 것 중 오차 범위를 넘어 나빠진 것은 없습니다.",
    ),
    "worse.broken": ("Breaks a limit", "기준을 못 지킴"),
    "worse.clear": ("Beyond error bars", "오차 범위를 넘음"),
    "worse.unsure": ("Within error bars", "오차 범위 이내"),
    "worse.same": ("No better", "그대로"),
    "worse.skill": (
        "{skill}: {before} → {after} right. {lost} answer(s) lost, {gained} gained of {items} (Holm p {p}).",
        "{skill}: 정답률 {before} → {after}. {items}문항에서 {lost}개를 잃고 {gained}개를 얻었습니다 (Holm p {p}).",
    ),
    "worse.skills": (
        "Fewer right answers, but no more than chance explains: {list}.",
        "정답이 줄었지만 우연으로 볼 수 있는 정도입니다: {list}.",
    ),
    "worse.classes": (
        "{share} of {count} answer(s) have another class first.",
        "답 {count}개 중 {share}의 클래스가 바뀌었습니다.",
    ),
    "worse.neighbours": (
        "{share} of {count} text(s) have another nearest one.",
        "텍스트 {count}개 중 {share}에서 가장 가까운 텍스트가 바뀌었습니다.",
    ),
    "worse.order": (
        "{share} of pairs of {count} scores are in the other order.",
        "점수 {count}개를 둘씩 비교하면 {share}의 순서가 바뀌었습니다.",
    ),
    "worse.top1": (
        "At {share} of positions the lighter model puts another token first.",
        "토큰의 {share}에서 경량본의 1순위가 원본과 다릅니다.",
    ),
    "worse.perplexity": (
        "Perplexity {before} → {after}, {more} higher.",
        "퍼플렉시티가 {more} 높아졌습니다: {before} → {after}.",
    ),
    "worse.tail": (
        "One token in 1,000 is {value} nats or more from the original; the mean is {mean}.",
        "토큰 1,000개 중 하나는 KL이 {value} nat 이상입니다. 평균은 {mean}입니다.",
    ),
    "worse.slower": (
        "{what} is slower: {before} → {after} tokens/s ({ratio}).",
        "{what} 속도가 느려졌습니다: {before} → {after} 토큰/초 ({ratio}).",
    ),
    "worse.memory": (
        "Peak memory rose: {before} → {after}.",
        "최대 메모리가 늘었습니다: {before} → {after}.",
    ),
    "same.speed": (
        "{what} is not measurably faster: the ratio lies between {low} and {high}.",
        "{what} 속도는 측정 오차를 넘어 빨라지지 않았습니다: 비율이 {low}에서 {high} 사이입니다.",
    ),
    "same.memory": (
        "Memory in use did not shrink, only the folder did: {before} → {after}.",
        "폴더는 작아졌지만 메모리 사용량은 줄지 않았습니다: {before} → {after}.",
    ),
    # size and quality
    "quality": ("Size and quality", "크기와 품질"),
    "quality.lede": (
        "Both models read the same {tokens} tokens ({windows} window(s) from {documents} document(s)). Error bars are "
        "over {clustered}.",
        "두 모델이 같은 토큰 {tokens}개를 읽었습니다 (문서 {documents}편에서 뽑은 윈도 {windows}개). "
        "오차는 {clustered} 단위로 계산했습니다.",
    ),
    "clustered.documents": ("documents", "문서"),
    "clustered.windows": ("windows", "창"),
    "text.report": (
        "Only the report part of the text is used, which is kept from calibration and verification.",
        "보정에도 검증에도 쓰지 않은 보고용 부분만 썼습니다.",
    ),
    "sizes": ("Bytes on disk, part by part", "부분별 디스크 크기"),
    "sizes.desc": (
        "Two bars on one scale: original {before}, lighter {after}.",
        "같은 눈금의 막대 둘: 원본 {before}, 경량본 {after}.",
    ),
    "part": ("Part", "부분"),
    "original": ("Original", "원본"),
    "lighter": ("Lighter", "경량본"),
    "ratio": ("Ratio", "비율"),
    "total": ("Whole folder", "폴더 전체"),
    "size.linears": ("Linears", "선형층"),
    "size.embedding": ("Embedding", "임베딩"),
    "size.head": ("Head", "출력층"),
    "size.other": ("Other tensors", "나머지 텐서"),
    "size.adapter": ("Adapter", "어댑터"),
    "size.tokenizer": ("Tokenizer files", "토크나이저 파일"),
    "size.rest": ("File headers, other files", "파일 헤더와 그 밖의 파일"),
    "divergence": ("Predictions against the original's", "원본과 비교한 예측"),
    "figure": ("Figure", "지표"),
    "value": ("Value", "값"),
    "kl": ("KL, nats a token", "토큰당 KL (nat)"),
    "top1": ("Same first choice", "1순위 토큰 일치"),
    "perplexity.original": ("Perplexity, original", "퍼플렉시티, 원본"),
    "perplexity.lighter": ("Perplexity, lighter", "퍼플렉시티, 경량본"),
    "perplexity.ratio": ("Perplexity ratio", "퍼플렉시티 비율"),
    "percentiles.answers": (
        "KL of single answers: so many are at or below",
        "답별 KL의 분포: 이 비율의 답이 그 값 이하",
    ),
    "classes.kl": ("KL of the classes, nats", "클래스 분포의 KL (nat)"),
    "classes.top1": ("Same class", "클래스 일치"),
    "scores.difference": ("Difference of scores over their standard deviation", "점수 차이 ÷ 표준편차"),
    "scores.order": ("Pairs in the same order", "같은 순서인 쌍"),
    "vectors.error": ("Relative error of hidden states", "은닉 상태의 상대 오차"),
    "vectors.cosine": ("Cosine of the vectors of a text", "텍스트 벡터의 코사인"),
    "vectors.neighbours": ("Same nearest text", "가장 가까운 텍스트 일치"),
    "answers.marks": ("on {count} starts and ends", "시작·끝 위치 {count}개에서"),
    "answers.texts": ("on {count} text(s)", "텍스트 {count}개에서"),
    "answers.tokens": ("on {count} tokens", "토큰 {count}개에서"),
    "percentiles": ("KL of single tokens: so many are at or below", "토큰별 KL의 분포: 이 비율의 토큰이 그 값 이하"),
    "share": ("Tokens", "토큰"),
    "max": ("worst token", "가장 나쁜 토큰"),
    # skills
    "skills": ("Skill by skill", "능력별"),
    "skills.lede": (
        "Retention is the lighter model's score over the original's, above chance: 100 % keeps everything. Lost and "
        "gained are answers that turned wrong and right; p (McNemar's, corrected by Holm) is how likely chance alone "
        "would make them so unequal.",
        "유지율은 우연 수준을 뺀 점수의 원본 대비 비율이고, 100 %면 모두 유지한 것입니다. 잃음과 얻음은 틀리게 된 답과 "
        "맞게 된 답의 수이며, p(맥니마 검정, 홀름 보정)는 우연만으로 둘의 차이가 그만큼 날 확률입니다.",
    ),
    "skills.plot": ("Retention of each skill, with its 95 % interval", "능력별 유지율과 95 % 구간"),
    "skills.desc": (
        "One row a skill, a dot for its retention and a line for its interval. {list}.",
        "한 줄이 능력 하나이고, 점이 유지율, 선이 구간입니다. {list}.",
    ),
    "skills.table": (
        "Both models on the same items, original → lighter",
        "같은 문항으로 측정한 두 모델, 원본 → 경량본",
    ),
    "skill": ("Skill", "능력"),
    "right": ("Right answers", "정답률"),
    "retention": ("Retention", "유지율"),
    "flips": ("Lost / gained", "잃음 / 얻음"),
    "at_chance": ("original at chance", "원본이 우연 수준"),
    "limit.line": ("limit {at}", "기준 {at}"),
    "flips.title": ("Answers that changed", "바뀐 답"),
    "flips.lede": (
        "Up to {count} of each kind are shown; the counts are of all.",
        "종류마다 {count}개까지 보여 줍니다. 개수는 전체를 센 것입니다.",
    ),
    "flips.count": (
        "of {items} questions, {lost} right answers lost and {gained} gained",
        "{items}문항에서 정답 {lost}개 잃음, {gained}개 얻음",
    ),
    "flips.groups": (
        "of {items} questions on {groups} subjects, {lost} right answers lost and {gained} gained",
        "소재 {groups}가지를 묻는 {items}문항에서 정답 {lost}개 잃음, {gained}개 얻음",
    ),
    "flips.lost": ("Right before, wrong now", "원본은 맞고 경량본은 틀린 답"),
    "flips.gained": ("Wrong before, right now", "원본은 틀리고 경량본은 맞은 답"),
    "expected": ("Expected", "정답"),
    "is.right": ("right", "맞음"),
    "is.wrong": ("wrong", "틀림"),
    "empty": ("(nothing)", "(빈 답)"),
    "tasks": ("Harness tasks", "하네스 과제"),
    "task": ("Task and metric", "과제와 지표"),
    # the training of a folder
    "training": ("Training", "학습"),
    "training.lede": (
        "Loss on text that was kept out of training, nats a token: {start} at the start, {best} at its best, after "
        "{step} steps (a diamond). The weights are those of then.",
        "학습에 쓰지 않은 텍스트의 손실(토큰당 nat): 시작할 때 {start}, 가장 좋을 때 {best}({step}스텝, 마름모). "
        "가중치는 그때의 것입니다.",
    ),
    "training.chance": (
        "Loss on text that was kept out of training, nats a token: {start} at the start, {best} at its best, which may "
        "be chance. The weights are as they were before.",
        "학습에 쓰지 않은 텍스트의 손실(토큰당 nat): 시작할 때 {start}, 가장 좋을 때 {best}. 이 차이는 우연일 수 있어 "
        "가중치는 학습 전 그대로입니다.",
    ),
    "training.plot": ("Held-out loss by step", "스텝에 따른 손실"),
    "training.steps": ("steps", "스텝"),
    "training.loss": ("loss", "손실"),
    "task.change": ("Change, item by item", "문항별로 짝지은 변화"),
    # the steps of a recipe
    "steps": ("Steps of the run", "실행한 단계"),
    "steps.lede": (
        "Each step reads the model that the one before it left. A step stands only where its gate holds, measured on "
        "text and questions that no step calibrates on; else it is rolled back.",
        "각 단계는 앞 단계의 모델을 받습니다. 어느 단계에서도 보정에 쓰지 않은 텍스트와 문항으로 측정해 게이트를 "
        "통과하면 채택하고, 통과하지 못하면 되돌립니다.",
    ),
    "steps.table": ("Every try, in order", "시도한 순서대로"),
    "step": ("Step", "단계"),
    "outcome": ("Outcome", "결과"),
    "gate": ("Gate: measured (limit)", "게이트: 측정값 (기준)"),
    "seconds.head": ("Time", "시간"),
    "outcome.kept": ("kept", "채택"),
    "outcome.tried": ("rolled back", "되돌림"),
    "outcome.skipped": ("skipped", "건너뜀"),
    "outcome.stopped": ("rolled back, stopped", "되돌리고 멈춤"),
    "outcome.undecided": ("not enough evidence", "근거 부족"),
    "outcome.not reached": ("not reached", "실행 안 함"),
    "gate.pass": ("holds", "통과"),
    "gate.fail": ("does not hold", "통과 못 함"),
    "gate.undecided": ("not enough evidence", "근거 부족"),
    # cost
    "cost": ("Speed, memory, time", "속도, 메모리, 시간"),
    "cost.table": ("Side by side on this machine", "이 컴퓨터에서 나란히 측정"),
    "cost.lede": (
        "Runtime {runtime}, one request at a time, {prompt} tokens in and {decoded} out; median of {rounds} turn(s), "
        "the lowest and highest ratio in parentheses.",
        "런타임 {runtime}, 한 번에 한 요청, 입력 {prompt}토큰과 출력 {decoded}토큰. {rounds}번의 중앙값이고, 괄호 "
        "안은 가장 낮은 비율과 가장 높은 비율입니다.",
    ),
    "prefill": ("Prefill, tokens/s", "프리필 (토큰/초)"),
    "decode": ("Decode, tokens/s", "디코드 (토큰/초)"),
    "prefill.word": ("Prefill", "프리필"),
    "decode.word": ("Decoding", "디코드"),
    "load": ("Load time", "불러오는 시간"),
    "peak": ("Peak memory", "최대 메모리"),
    "seconds": ("{seconds} s", "{seconds}초"),
    "minutes": ("{minutes} min {seconds} s", "{minutes}분 {seconds}초"),
    "hours": ("{hours} h {minutes} min", "{hours}시간 {minutes}분"),
    "environment": ("Machine and versions", "컴퓨터와 버전"),
    "environment.compare": ("Compared on: machine and versions", "비교한 컴퓨터와 버전"),
    "name": ("Name", "이름"),
    "run.seconds": ("Making it took", "만드는 데 걸린 시간"),
    "run.memory": ("Memory while making it", "만들 때의 최대 메모리"),
    "compare.seconds": ("Comparing took", "비교에 걸린 시간"),
    "environment.machine": ("Architecture", "아키텍처"),
    "environment.system": ("System", "시스템"),
    "environment.processor": ("Processor", "프로세서"),
    "environment.cores": ("Cores", "코어"),
    "environment.threads": ("Threads used", "사용한 스레드"),
    "environment.gpu": ("GPU", "GPU"),
    "environment.dtype": ("Computed in", "계산 타입"),
    "none": ("none", "없음"),
    "repair": (
        "Beside {count} module(s) of the blocks runs an adapter of rank {rank} ({size}), which puts back a part of "
        "what rounding lost. It is a part of the model that was measured: whoever loads the folder loads it too.",
        "블록의 모듈 {count}개에 랭크 {rank} 어댑터({size})를 붙여 양자화로 잃은 것의 일부를 보완합니다. "
        "어댑터까지 포함해 측정했으므로 폴더를 불러올 때 함께 불러와야 합니다.",
    ),
    # loading and notes
    "loading": ("How to load it", "불러오는 법"),
    "checked.run in tests": ("run in tests", "테스트에서 실행함"),
    "checked.run here": ("run here", "여기서 실행함"),
    "checked.accepted by its parser": ("accepted by its parser, not run", "파서가 받아들임, 실행 안 함"),
    "checked.unsupported": ("unsupported", "지원 안 함"),
    "copy": ("Copy", "복사"),
    "copied": ("Copied", "복사됨"),
    "notes": ("Notes", "알림"),
    "made.by": (
        "Written by whet {version}. This page is one file and loads nothing from the network.",
        "whet {version}으로 만들었습니다. 이 페이지는 파일 하나이며 네트워크에서 아무것도 불러오지 않습니다.",
    ),
    "original.sha256": ("Original's SHA-256", "원본의 SHA-256"),
    "text.fingerprint": ("Fingerprint of the text", "텍스트의 해시"),
    "text.source": ("Text", "텍스트"),
    "text.seed": ("Seed", "시드"),
}


_PLURAL = re.compile(r"(\(?\d[\d,]*) (\w+(?: \w+)?)\((e?s)\)")  # a number and what is counted: `{count} part(s)`


def _counted(found: re.Match[str]) -> str:
    """`1 part`, `2 parts`."""
    return f"{found[1]} {found[2]}{'' if found[1].lstrip('(') == '1' else found[3]}"


class Words:
    """The words of one language: `words("limit")`, `words("bits", bits=4)`."""

    def __init__(self, language: str) -> None:
        """`language`: `en` or `ko`. Raises ValueError for another."""
        self.language = language
        self._place = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        said = WORDS[key][self._place].replace(" %", "\u00a0%").format(**values)
        return with_particles(said) if self.language == "ko" else _PLURAL.sub(_counted, said)

    def known(self, key: str, otherwise: str, **values: object) -> str:
        """The words of `key` where the table has it, else `otherwise` as it stands."""
        return self(key, **values) if key in WORDS else otherwise

    def sentence(self, message: Any) -> str:
        """A note in this language: a message, or what JSON holds of one."""
        return in_language(Message.read(message), self.language)

    def duration(self, seconds: float) -> str:
        """`4.2 s`, `42 s`, `3 min 5 s`, `2 h 10 min`."""
        if seconds < 10:
            return self("seconds", seconds=f"{seconds:.1f}")
        whole = round(seconds)
        if whole < 60:
            return self("seconds", seconds=whole)
        if whole < 3600:
            return self("minutes", minutes=whole // 60, seconds=whole % 60)
        return self("hours", hours=whole // 3600, minutes=whole % 3600 // 60)
