"""Sentences of the rooms below (notes, warnings, reasons) in Korean.

They are made and stored in English, in whet.json and in results; who shows one to a Korean reader finds here what it
says by its wording. Fields in braces stand for what a sentence names; what has no Korean here stays as it is. Errors
are in `whet.report.refusals`.
"""

from __future__ import annotations

import re
from functools import cache

from whet.korean import josa
from whet.report.refusals import REFUSALS

SENTENCES: dict[str, str] = {
    "{some} and {count} more": "{some} 외 {count}개",
    # before the run
    "{target} reads {what}, which whet does not write yet: codes and scales lie on what {same} stores, and the "
    "folder itself loads in transformers and in whet.": (
        "{target}은(는) {what}을(를) 읽는데 whet은 아직 그것을 쓰지 않습니다. 코드와 스케일은 {same}이(가) 담는 것에 "
        "맞추며, 폴더 자체는 transformers와 whet에서 열립니다."
    ),
    "whet has no table of the family {family}: only the linears of its {count} blocks ({blocks}) are rounded, "
    "each to nearest and by itself, without a look at text (the solver and text that were given have no use here)": (
        "whet에 {family} 계열의 표가 없습니다. 블록 {count}개({blocks})의 선형층만 글을 보지 않고 하나씩 가장 가까운 "
        "값으로 반올림합니다 (주어진 solver와 글은 쓰이지 않습니다)"
    ),
    "whet has no table of the family {family}: only the linears of its {count} blocks ({blocks}) are rounded, "
    "each to nearest and by itself, without a look at text": (
        "whet에 {family} 계열의 표가 없습니다. 블록 {count}개({blocks})의 선형층만 글을 보지 않고 하나씩 가장 가까운 "
        "값으로 반올림합니다"
    ),
    "{head} differs from the embedding although config.json ties the two: both are kept, as transformers does, "
    "and the lighter config says that they are not tied": (
        "config.json은 {head}를 임베딩과 묶지만 값이 다릅니다. transformers처럼 둘 다 두고, 경량본의 config에는 "
        "묶이지 않았다고 적습니다"
    ),
    "windows of {have} tokens instead of {asked}: the model's config allows no longer ones": (
        "창을 {asked}토큰 대신 {have}토큰으로 합니다. 모델의 config가 더 긴 것을 허용하지 않습니다"
    ),
    "copied unchanged, as no table names them: {names}": "표에 이름이 없어 그대로 복사했습니다: {names}",
    "{name} left out: it is a copy of the embedding, to which config.json ties it": (
        "{name}은(는) 뺐습니다. config.json이 임베딩과 묶는 복사본입니다"
    ),
    "blocks are trained with every error of their output weighed alike, and nothing after them: {why}": (
        "블록은 출력의 모든 오차를 똑같이 여겨 훈련하고 그 뒤의 조율은 없습니다: {why}"
    ),
    "no text was left for verifying, so the run reports no KL of its own; use whet compare": (
        "검증할 글이 남지 않아 이 실행은 KL을 알리지 않습니다. whet compare를 쓰십시오"
    ),
    "{other} instead of {scheme}, because their rows do not divide by {group}: {names}": (
        "행이 {group}(으)로 나누어지지 않아 {scheme} 대신 {other}: {names}"
    ),
    "no text was given: the model writes {tokens} tokens itself, in about {seconds} s. Text of your own (--text) "
    "is better where you have it.": (
        "글이 주어지지 않아 모델이 스스로 {tokens}토큰을 씁니다 (약 {seconds}초). 쓰시는 글이 있으면 --text로 주는 "
        "편이 낫습니다."
    ),
    "the original writes {tokens} tokens beside the text, going on from pieces of it": (
        "원본이 주어진 글의 조각을 이어 {tokens}토큰을 더 씁니다"
    ),
    "solved on the text given alone, of which `best` would have more from the original, but it {why}": (
        "주어진 글만으로 풀었습니다. `best`는 원본이 쓴 글을 더하지만, 원본이 {why}"
    ),
    # plans
    "{target} loads no quantized embedding or head: {preset} leaves them as they are": (
        "{target}은(는) 양자화된 임베딩이나 헤드를 열지 못합니다. {preset}은(는) 그대로 둡니다"
    ),
    "what an expert is worth depends on which tokens are sent to it, and that is not measured yet": (
        "전문가의 가치는 어떤 토큰이 그리로 가는지에 달렸는데, 아직 그것을 재지 않습니다"
    ),
    "no table says what its parts are": "부분이 무엇인지 말하는 표가 없습니다",
    "scoring follows predictions of the next token, which it does not make": (
        "점수는 다음 토큰의 예측을 따라 매기는데, 이 모델은 그것을 하지 않습니다"
    ),
    # plans
    "{target} loads no quantized embedding or head: {names} stay as they are.": (
        "{target}은(는) 양자화된 임베딩이나 헤드를 열지 못합니다. {names}은(는) 그대로 둡니다."
    ),
    "{target} takes {schemes} from whet, and no other scheme.": "{target}은(는) whet에서 {schemes}만 받습니다.",
    "{target} has no kernels for {bits} bits.": "{target}에는 {bits}비트 커널이 없습니다.",
    "{target} holds no real zeros.": "{target}은(는) 실수 영점을 담지 못합니다.",
    "{target} fuses {roles}: they have one scheme.": (
        "{target}은(는) {roles}을(를) 하나로 합치므로 방식이 같아야 합니다."
    ),
    "{target} needs groups that divide the row: {count} linears have fewer choices.": (
        "{target}에는 행을 나누는 그룹이 필요합니다. 선형층 {count}개는 고를 것이 적습니다."
    ),
    "no mix that stock containers hold keeps this budget, so the folder carries its own modelling file "
    "(trust_remote_code=True)": (
        "표준 컨테이너가 담는 혼합으로는 예산을 지킬 수 없어, 폴더에 자체 모델링 파일이 "
        "들어갑니다(trust_remote_code=True)"
    ),
    "a free mix would take {best} bytes instead of {mix}: make one with --for whet": (
        "자유로운 혼합이면 {mix}바이트 대신 {best}바이트입니다. --for whet으로 만들 수 있습니다"
    ),
    "stock containers hold one scheme throughout, or symmetric linears: a free mix is predicted to lose {best} "
    "instead of {mix} nats a token; make one with --for whet": (
        "표준 컨테이너는 전체에 한 방식이거나 대칭 선형층만 담습니다. 자유로운 혼합의 예측 손실은 토큰당 {mix} 대신 "
        "{best} nat이며 --for whet으로 만들 수 있습니다"
    ),
    "the plan's schemes were edited after it was made: its predictions are dropped": (
        "계획의 방식이 나중에 손으로 바뀌어 그 예측은 버립니다"
    ),
    "the plan takes {total} bytes of tensors, more than the {limit} of its budget": (
        "계획의 텐서는 {total}바이트로 예산의 {limit}바이트보다 많습니다"
    ),
    "round {number}: {bytes} bytes, KL {kl} (predicted {predicted}), lowest retention {share} ({skill})": (
        "{number}번째 시도: {bytes}바이트, KL {kl} (예측 {predicted}), 가장 낮은 유지율 {share} ({skill})"
    ),
    "round {number}: {bytes} bytes, KL {kl} (predicted {predicted})": (
        "{number}번째 시도: {bytes}바이트, KL {kl} (예측 {predicted})"
    ),
    # solving
    "solved on {tokens} tokens, fewer than the {widest} channels that its widest linear reads: give more text (--text, "
    "--samples, --synthetic)": (
        "{tokens}토큰으로 풀어, 가장 넓은 선형층이 읽는 채널 {widest}개보다 적습니다. 글을 더 주십시오(--text, "
        "--samples, --synthetic)"
    ),
    "{names} of {count} blocks stay as GPTQ left them: training lost more than it won on the verifying text. More "
    "text (--samples) may help.": (
        "블록 {count}개 가운데 {names}은(는) GPTQ의 결과 그대로입니다. 검증 글에서 훈련으로 얻은 것보다 잃은 것이 "
        "많았습니다. 글이 많으면(--samples) 나을 수 있습니다."
    ),
    "scales stay as they were: tuning them lost more than it won on the verifying text": (
        "스케일은 그대로 둡니다. 검증 글에서 조율로 얻은 것보다 잃은 것이 많았습니다"
    ),
    "block {index}: experts {experts} saw fewer than {share} of the tokens and were rounded with the mean "
    "importance of their block; more text, or other text, may reach them": (
        "블록 {index}: 전문가 {experts}이(가) 토큰의 {share}보다 적게 보아 블록의 평균 중요도로 반올림했습니다. 더 "
        "많거나 다른 글이면 닿을 수 있습니다"
    ),
    "second moment could not be factorised at any damping: rounded to nearest": (
        "어떤 감쇠에서도 이차 모멘트를 분해할 수 없어 가장 가까운 값으로 반올림했습니다"
    ),
    "damping raised from {old} to {new}": "감쇠를 {old}에서 {new}(으)로 올렸습니다",
    "scales kept in float32: float16 would lose them": "스케일을 float32로 둡니다. float16이면 사라집니다",
    # transforms and repairs
    "transform {kind}: of {count} groups of linears {parts}; {how} loses {mean} of what it lost before, linear by "
    "linear (geometric mean); before any rounding, KL to the original is {gap} nats per token": (
        "변환 {kind}: 선형층 {count}묶음 가운데 {parts}; {how} 잃는 것은 선형층마다 전의 {mean}배 (기하 평균); 반올림 "
        "전 원본과의 KL은 토큰당 {gap} nat"
    ),
    "transform {kind}: of {count} groups of linears {parts}; {how} loses {mean} of what it lost before, linear by "
    "linear (geometric mean)": (
        "변환 {kind}: 선형층 {count}묶음 가운데 {parts}; {how} 잃는 것은 선형층마다 전의 {mean}배 (기하 평균)"
    ),
    "transform {kind}: of {count} groups of linears {parts}; before any rounding, KL to the original is {gap} "
    "nats per token": "변환 {kind}: 선형층 {count}묶음 가운데 {parts}; 반올림 전 원본과의 KL은 토큰당 {gap} nat",
    "transform {kind}: of {count} groups of linears {parts}": "변환 {kind}: 선형층 {count}묶음 가운데 {parts}",
    "transform auto, group by group: {kept} of {count} groups lose less with a transform where nothing else is "
    "rounded, together {share} of their KL without, on {tokens} tokens": (
        "변환 auto, 묶음마다: {count}묶음 가운데 {kept}묶음은 그 묶음만 반올림할 때 변환이 있으면 덜 잃어, 합한 KL이 "
        "없을 때의 {share}배 ({tokens}토큰)"
    ),
    "transform auto, group by group: none of {count} groups loses less with a transform; none is kept": (
        "변환 auto, 묶음마다: {count}묶음 가운데 변환으로 덜 잃는 것이 없어 하나도 두지 않습니다"
    ),
    "transform auto, group by group: judged linear by linear alone, because {why}": (
        "변환 auto, 묶음마다: 선형층 하나하나로만 판정했습니다: {why}"
    ),
    "too few tokens could be followed in the time and memory of a run": (
        "실행의 시간과 메모리로는 따라갈 수 있는 토큰이 너무 적습니다"
    ),
    "transform auto, the whole: rounded throughout with {solver}, KL on the verifying text is {after} nats per token "
    "with these transforms and {before} without, a difference with a standard error of {noise}: {result}": (
        "변환 auto, 전체: 모두 {solver}(으)로 반올림하면 검증 글의 KL은 이 변환들로 토큰당 {after} nat, 없이 {before} "
        "nat이고 차이의 표준 오차는 {noise}: {result}"
    ),
    "they stay": "변환을 둡니다",
    "none is kept": "하나도 두지 않습니다",
    "the solver, on the verifying text,": "검증 글에서 풀이가",
    "rounding to nearest": "가장 가까운 값으로 반올림해",
    "the head is stored apart from the embedding, to which config.json ties it, and {takes}: the last norm's weights "
    "are folded into it": (
        "config.json은 출력층을 임베딩과 묶지만 마지막 norm의 가중치를 출력층에 접어 넣으므로 따로 두며, 출력층은 "
        "{takes}"
    ),
    "takes {size} bytes more": "{size}바이트가 더 듭니다",
    "counts in the budget": "예산에 들어갑니다",
    "no transform of the {reads} ({names}): {why}": "{reads} ({names})에는 변환이 없습니다: {why}",
    "it is the residual stream itself, with no norm in between": "사이에 norm이 없는 잔차 흐름 그 자체입니다",
    "the norm before it is the residual stream too": "앞의 norm이 잔차 흐름이기도 합니다",
    "the norm comes after, so what is read is the residual stream ({entry} is false)": (
        "norm이 뒤에 오므로 읽는 것이 잔차 흐름입니다 ({entry}이(가) false)"
    ),
    "the rows of v alternate with those of q and k, head by head": "v의 행이 헤드마다 q와 k의 행과 번갈아 놓입니다",
    "every block of the decoder reads it": "디코더의 모든 블록이 읽습니다",
    "whet has no table of what gives it": "무엇이 그것을 내는지 whet에 표가 없습니다",
    "its norm ({names}) has no weight": "그 norm({names})에 가중치가 없습니다",
    "{act} stands in between": "사이에 {act}이(가) 있습니다",
    "rows share scales in {grid}": "{grid}에서는 행들이 스케일을 나눠 씁니다",
    "16 bits do not hold rotated what stays in them": "16비트로 남는 것은 회전한 값을 담지 못합니다",
    "experts are rounded as by gptq: the original and the lighter model send them different tokens": (
        "전문가는 gptq처럼 반올림합니다. 원본과 경량본이 서로 다른 토큰을 보내기 때문입니다"
    ),
    "the plan's prediction is of its schemes alone, without what repair adds in bytes and wins": (
        "계획의 예측은 방식만의 것으로, 복구가 더하는 바이트와 이득은 들어 있지 않습니다"
    ),
    # comparing
    "A masked model: at every position it is asked for the token that stands there, which it sees.": (
        "마스크 모델: 자리마다 거기 있는 토큰을 물으며, 모델은 그것을 봅니다."
    ),
    "An encoder and a decoder: both are given each window, and the decoder says what comes next in it.": (
        "인코더와 디코더: 둘 다 창을 받고, 디코더가 다음에 올 것을 말합니다."
    ),
    "The text has {count} document(s): error bars are over its {windows} windows, which are not quite "
    "independent, so they are somewhat too short. A text of many documents gives honest ones.": (
        "글에 문서가 {count}개입니다. 오차 막대는 서로 아주 독립은 아닌 창 {windows}개로 구해 조금 짧습니다. 문서가 "
        "많은 글이면 정직해집니다."
    ),
    "Windows have {context} tokens, the context of the model, instead of {asked}.": (
        "창은 {asked}토큰 대신 모델의 문맥인 {context}토큰입니다."
    ),
    "This text also made the lighter model: only its report part, which nothing was solved on, is used.": (
        "이 글로 경량본도 만들었습니다. 푸는 데 쓰지 않은 보고 몫만 씁니다."
    ),
    "This text verified the lighter model while it was made; nothing was solved on it.": (
        "이 글은 경량본을 만들 때 검증에 쓰였고, 푸는 데는 쓰이지 않았습니다."
    ),
    "The lighter model was solved on the text used here: the figures flatter it.": (
        "경량본이 여기 쓰인 글로 풀렸습니다. 수치가 실제보다 좋게 나옵니다."
    ),
    "The original's vocabulary is {original} wide, the lighter's {lighter}; the first {width} are compared.": (
        "어휘가 원본은 {original}개, 경량본은 {lighter}개라서 앞의 {width}개를 비교합니다."
    ),
    "One side runs in llama.cpp, the other in PyTorch: the figures hold the difference of the runtimes too, such "
    "as llama.cpp's int8 inputs, and so do speed and memory.": (
        "한쪽은 llama.cpp, 다른 쪽은 PyTorch에서 돕니다. 수치에는 llama.cpp의 int8 입력처럼 런타임의 차이도 들어 "
        "있고, 속도와 메모리도 그렇습니다."
    ),
    "The lighter folder needs its own modelling file: stock transformers loads it with trust_remote_code=True, "
    "whet loads it without.": (
        "경량본 폴더에는 자체 모델링 파일이 필요합니다. transformers는 trust_remote_code=True로 열고, whet은 그것 "
        "없이 엽니다."
    ),
    # llama.cpp
    "{target} was not run: {why}": "{target}은(는) 실행하지 않았습니다: {why}",
    "llama-cpp-python is not installed (pip install 'whet[llamacpp]')": (
        "llama-cpp-python이 없습니다 (pip install 'whet[llamacpp]')"
    ),
    "it loads; comparing needs {needs} GB of memory and {free} GB are free": (
        "열리지만, 비교하려면 메모리가 {needs} GB 필요한데 {free} GB가 비어 있습니다"
    ),
    "not run: the model is too large to load beside this run": "실행하지 않음: 이 실행 곁에서 열기에는 모델이 큽니다",
    "{count} tokens of the tokenizer have no row in the embedding and are left out": (
        "토크나이저의 토큰 {count}개는 임베딩에 행이 없어 뺐습니다"
    ),
    "the tokenizer takes spaces after special tokens to them, llama.cpp does not for this model": (
        "토크나이저는 특수 토큰 뒤의 공백을 그 토큰에 붙이는데, 이 모델에서 llama.cpp는 그러지 않습니다"
    ),
    "the tokenizer composes characters (NFC), llama.cpp does not: give it composed text": (
        "토크나이저는 글자를 조합하지만(NFC) llama.cpp는 하지 않습니다. 조합된 글을 주십시오"
    ),
    "llama.cpp joins {count} pairs of pieces that the tokenizer does not ({left} and {right}): text with them is "
    "read as other tokens": (
        "llama.cpp는 토크나이저가 합치지 않는 조각 {count}쌍을 합칩니다({left} 그리고 {right}). 그것이 든 글은 다른 "
        "토큰으로 읽힙니다"
    ),
    "the tokenizer has several chat templates and none by default: none was written": (
        "토크나이저에 대화 틀이 여럿인데 기본이 없어 하나도 쓰지 않았습니다"
    ),
    "the context is {length} tokens instead of {longer}: beyond the attention window llama.cpp would compute "
    "something else for this family": (
        "문맥은 {longer}토큰 대신 {length}토큰입니다. 주의 창을 넘으면 이 계열에서 llama.cpp는 다른 것을 계산합니다"
    ),
    "llama.cpp takes the rotary frequencies for long text whenever it is opened with a longer context than the "
    "model's first one, transformers when the text is longer": (
        "llama.cpp는 모델의 처음 문맥보다 길게 열리면 늘 긴 글의 회전 주파수를 쓰고, transformers는 글이 더 길 때 "
        "씁니다"
    ),
}


def in_korean(sentence: str) -> str:
    """`sentence` in Korean where it has one, with what it names, itself in Korean where it has one.

    Of several patterns that fit, the one with the most words of its own is meant. What is listed with `; ` in between
    is told item by item where every item has Korean.
    """
    return _told(sentence, _DEEPEST)


def _told(sentence: str, deeper: int) -> str:
    items = sentence.split("; ")
    if len(items) > 1 and all(_meant(item) for item in items):
        return "; ".join(_told(item, deeper) for item in items)
    meant = _meant(sentence)
    if meant is None or not deeper:
        return sentence
    korean, named = meant
    told = {name: _told(value, deeper - 1) for name, value in named.items()}
    return _PARTICLE.sub(_particle, _FIELD.sub(lambda field: told[field[1]], korean))


def _particle(found: re.Match[str]) -> str:
    """A Hangul syllable with the particle that it takes of the two that are written after a field."""
    return josa(found[1], _PARTICLES[found[2]])


def _meant(sentence: str) -> tuple[str, dict[str, str]] | None:
    """The Korean of the pattern that `sentence` is made of, and what it names."""
    for words, fields, korean in _patterns():
        values = _fitted(sentence, words)
        if values is not None:
            return korean, dict(zip(fields, values, strict=True))
    return None


def _fitted(sentence: str, words: tuple[str, ...]) -> list[str] | None:
    """What stands between `words`, or None where they are not what `sentence` is made of.

    Each field ends where the words after it first occur: nothing is tried twice, so that the time grows with the length
    of a path or text that is named and no faster, which regular expressions do not promise.
    """
    first, last = words[0], words[-1]
    if len(words) == 1:
        return [] if sentence == first else None
    end = len(sentence) - len(last)
    if not sentence.startswith(first) or not sentence.endswith(last) or end < len(first):
        return None
    values, at = [], len(first)
    for word in words[1:-1]:
        found = sentence.find(word, at, end)
        if found < 0:
            return None
        values.append(sentence[at:found])
        at = found + len(word)
    return [*values, sentence[at:end]]


@cache
def _patterns() -> list[tuple[tuple[str, ...], tuple[str, ...], str]]:
    """What every English sentence says between its fields, the fields, and its Korean; most words first."""
    told = [
        (english.replace("{near}", hint), korean.replace("{near}", hinted))
        for english, korean in (SENTENCES | REFUSALS).items()
        for hint, hinted in (_HINTS if "{near}" in english else _HINTS[:1])
    ]
    split = [(_FIELD.split(english), korean) for english, korean in told]
    patterns = [(tuple(parts[::2]), tuple(parts[1::2]), korean) for parts, korean in split]
    return sorted(patterns, key=lambda pattern: -sum(map(len, pattern[0])))


_DEEPEST = 6  # sentences within sentences; a text that repeats the words of one is not followed to its end
# What `{near}` stands for: nothing, or what `did_you_mean` says.
_HINTS = (("", ""), (" Did you mean {near}?", " 혹시 {near}입니까?"))
# Particles as they are written after a field, and what `josa` calls them.
_PARTICLES = {"은(는)": "은", "이(가)": "이", "을(를)": "을", "와(과)": "과", "(으)로": "으로", "(이)": "(이)"}
_PARTICLE = re.compile(rf"([가-힣])({'|'.join(map(re.escape, _PARTICLES))})")
_FIELD = re.compile(r"\{(\w+)\}")
