"""Errors of what models are measured on in Korean: text, skills, limits, tasks and the comparison itself."""

from __future__ import annotations

MATERIAL: dict[str, str] = {
    # reading text
    "{path} is a folder with no {kinds} file in it. Name a text file.": (
        "폴더 {path}에 {kinds} 파일이 없습니다. 글 파일을 주십시오."
    ),
    '{path}: whet reads plain text, .jsonl and .parquet, not {suffix}. Write one JSON object a line, {"{field}": '
    '"..."}, to a .jsonl file.': (
        "{path}: whet은 {suffix}이(가) 아니라 일반 글, .jsonl, .parquet을 읽습니다. .jsonl 파일에 한 줄에 JSON 객체 "
        '하나씩 {"{field}": "..."}로 적으십시오.'
    ),
    "{source}: no such file.{near} Check the path of the text.": (
        "{source}: 그런 파일이 없습니다.{near} 글의 경로를 확인하십시오."
    ),
    "{path}: conversations are read from .jsonl or .parquet, not from plain text. Drop chat.": (
        "{path}: 대화는 일반 글이 아니라 .jsonl이나 .parquet에서 읽습니다. chat을 빼십시오."
    ),
    "{source}: there is no text in it. Give a file with text, or name another field.": (
        "{source}: 글이 들어 있지 않습니다. 글이 있는 파일을 주거나 다른 필드를 말하십시오."
    ),
    "{path}: cannot be read ({error}). Check its permissions.": (
        "{path}: 읽을 수 없습니다({error}). 권한을 확인하십시오."
    ),
    "{path}: not UTF-8 at byte {at} (line {line}: byte {byte}). If it is {encoding}, convert it: iconv -f {again} "
    "-t UTF-8 {name} > {made}": (
        "{path}: {at}번째 바이트가 UTF-8이 아닙니다({line}번째 줄: 바이트 {byte}). {encoding}이면 바꾸십시오: iconv -f "
        "{again} -t UTF-8 {name} > {made}"
    ),
    "{path}, line {line}: not JSON ({error} at column {column}). Each line holds one object.": (
        "{path}의 {line}번째 줄: JSON이 아닙니다({column}번째 칸: {error}). 한 줄에 객체가 하나입니다."
    ),
    '{path}, line {line}: a JSON object was expected, found {kind}. Write each line as {"text": "..."}.': (
        '{path}의 {line}번째 줄: JSON 객체여야 하는데 {kind}입니다. 줄마다 {"text": "..."}로 적으십시오.'
    ),
    '{path}: reading parquet needs pyarrow. Install it with: pip install "whet[parquet]"': (
        '{path}: parquet을 읽으려면 pyarrow가 필요합니다. 설치: pip install "whet[parquet]"'
    ),
    "{path}: not a readable parquet file ({error}). Write or download it again.": (
        "{path}: 읽을 수 있는 parquet 파일이 아닙니다({error}). 다시 쓰거나 내려받으십시오."
    ),
    "{name}: there is no such file, and reading it as a dataset of the Hugging Face hub needs the package datasets. "
    'Check the path, or install it with: pip install "whet[hub]"': (
        "{name}: 그런 파일이 없고, Hugging Face 허브의 데이터셋으로 읽으려면 datasets 패키지가 필요합니다. 경로를 "
        '확인하거나 설치하십시오: pip install "whet[hub]"'
    ),
    "{name}: the dataset could not be loaded from the hub ({error}). Check the name and the network, or give a file.": (
        "{name}: 허브에서 데이터셋을 열지 못했습니다({error}). 이름과 네트워크를 확인하거나 파일을 주십시오."
    ),
    "{where}: field {field} holds {kind}, not text. Name a field of text, or mend the record.": (
        "{where}: 필드 {field}에 글이 아니라 {kind}이(가) 들어 있습니다. 글이 든 필드를 말하거나 레코드를 고치십시오."
    ),
    "{where}: field {field} holds {kind}, not text. To read conversations, ask for chat. Name a field of text, or "
    "mend the record.": (
        "{where}: 필드 {field}에 글이 아니라 {kind}이(가) 들어 있습니다. 대화를 읽으려면 chat을 켜십시오. 아니면 글이 "
        "든 필드를 말하거나 레코드를 고치십시오."
    ),
    "{where}: there is no field {field}; the fields are: {known}.{near} Name the one that holds the text (--field).": (
        "{where}: 필드 {field}이(가) 없습니다. 있는 필드: {known}.{near} 글이 든 필드를 말하십시오(--field)."
    ),
    "{where}: there is no field {field}; the fields are: none.{near} Name the one that holds the text (--field).": (
        "{where}: 필드 {field}이(가) 없고 다른 필드도 없습니다.{near} 글이 든 필드를 말하십시오(--field)."
    ),
    "{path}, line {line}": "{path}의 {line}번째 줄",
    "{path}, row {row}": "{path}의 {row}번째 행",
    "the documents given": "주어진 문서",
    "documents given": "주어진 문서",
    "{source} (its report part)": "{source} (보고 몫)",
    # conversations
    "{where}: a chat template was asked for, but no tokenizer was given. Give the tokenizer of the model, or read a "
    "plain text field without chat.": (
        "{where}: 대화 틀을 요구했지만 토크나이저가 없습니다. 모델의 토크나이저를 주거나 chat 없이 글 필드를 "
        "읽으십시오."
    ),
    "{where}: a chat template was asked for, but the tokenizer {tokenizer} has none. It is probably a base model: "
    "use plain text without chat, or a folder whose tokenizer_config.json or chat_template.jinja holds a template.": (
        "{where}: 대화 틀을 요구했지만 토크나이저 {tokenizer}에 없습니다. 대화용이 아닌 모델인 듯하니 chat 없이 일반 "
        "글을 쓰거나, tokenizer_config.json이나 chat_template.jinja에 틀이 있는 폴더를 쓰십시오."
    ),
    '{where}: expected a non-empty list of {"role": ..., "content": ...}, found {messages}. Name the field that '
    "holds the conversation, or read plain text without chat.": (
        '{where}: 비어 있지 않은 {"role": ..., "content": ...}의 목록이어야 하는데 {messages}입니다. 대화가 든 필드를 '
        "말하거나 chat 없이 일반 글을 읽으십시오."
    ),
    "{where}: the chat template refused the conversation ({error}). Check the order of roles, or leave the record "
    "out.": "{where}: 대화 틀이 이 대화를 받지 않습니다({error}). 역할의 순서를 확인하거나 레코드를 빼십시오.",
    # cutting text
    "The text is empty: nothing to solve or check with. Give a text with words in it.": (
        "글이 비어 있어 풀거나 확인할 것이 없습니다. 내용이 있는 글을 주십시오."
    ),
    "The text ({characters} characters, {documents} distinct documents) is too short to be divided into a part to "
    "solve with, one to verify and one to report. Give more text, or a separate text for evaluation.": (
        "글(글자 {characters}개, 서로 다른 문서 {documents}개)이 짧아 푸는 몫, 검증하는 몫, 보고하는 몫으로 나눌 수 "
        "없습니다. 글을 더 주거나 평가용 글을 따로 주십시오."
    ),
    "A window of {length} tokens is too short to tell anything: use {least} or more.": (
        "{length}토큰짜리 창은 너무 짧습니다. {least} 이상으로 하십시오."
    ),
    "{count} windows were asked for: use 1 or more.": "창을 {count}개 요구했습니다. 1개 이상으로 하십시오.",
    "{source} is empty: there is nothing to cut windows from. Give a text with words in it.": (
        "{source}이(가) 비어 있어 창을 자를 것이 없습니다. 내용이 있는 글을 주십시오."
    ),
    "{source}: text shorter than a window: it has {tokens} tokens, one window is {length}. Give more text.": (
        "{source}: 글이 {tokens}토큰으로 창 하나({length}토큰)보다 짧습니다. 글을 더 주십시오."
    ),
    "{source}: text shorter than a window: it has {tokens} tokens, one window is {length}. Give more text, or a "
    "window of at most {most} tokens.": (
        "{source}: 글이 {tokens}토큰으로 창 하나({length}토큰)보다 짧습니다. 글을 더 주거나 창을 {most}토큰 이하로 "
        "하십시오."
    ),
    "{source}: all {count} documents are shorter than {least} tokens, and windows do not cross documents. Give "
    "longer documents, for instance by joining lines that belong together.": (
        "{source}: 문서 {count}개가 모두 {least}토큰보다 짧은데 창은 문서를 넘지 않습니다. 이어지는 줄을 합치는 등 더 "
        "긴 문서를 주십시오."
    ),
    "{path} does not exist. Give a safetensors file that holds int64 windows [n, L].": (
        "{path}이(가) 없습니다. int64 창 [n, L]이 든 safetensors 파일을 주십시오."
    ),
    "{path} holds no tensor `windows` of shape [n, L]. Write the token windows under that name.": (
        "{path}에 모양이 [n, L]인 텐서 `windows`가 없습니다. 토큰 창을 그 이름으로 적으십시오."
    ),
    "The windows given must be rows of at least two token numbers, none of them negative.": (
        "주는 창은 음수가 없는 토큰 번호가 둘 이상인 행이어야 합니다."
    ),
    # skills
    "{where} is empty. Give at least one item, or leave skills out.": (
        "{where}이(가) 비어 있습니다. 문항을 하나 이상 주거나 skills를 빼십시오."
    ),
    "The list of skill items": "문항 목록",
    "skill item {number}": "문항 {number}번",
    "{where}: an item is a JSON object, found {kind}.": "{where}: 문항은 JSON 객체인데 {kind}입니다.",
    "{where}: skill is blank. Name the skill, as the report will.": (
        "{where}: skill이 비어 있습니다. 보고서에 나올 능력의 이름을 적으십시오."
    ),
    "{where}: an item has either answer (with check) or choices (with label), found both.": (
        "{where}: 문항에는 answer(와 check)나 choices(와 label) 가운데 하나만 있어야 하는데 둘 다 있습니다."
    ),
    "{where}: an item has either answer (with check) or choices (with label), found neither.": (
        "{where}: 문항에는 answer(와 check)나 choices(와 label) 가운데 하나가 있어야 하는데 둘 다 없습니다."
    ),
    "{where}: label goes with choices, and this item has an answer. Drop label, or give choices.": (
        "{where}: label은 choices와 쓰는데 이 문항에는 answer가 있습니다. label을 빼거나 choices를 주십시오."
    ),
    "{where}: check {check} is not known.{near} The checks are: {known}.": (
        "{where}: {check}은(는) 모르는 check입니다.{near} 있는 것: {known}."
    ),
    "{where}: answer must be text that is not blank, found {answer}.": (
        "{where}: answer는 비어 있지 않은 글이어야 하는데 {answer}입니다."
    ),
    "{where}: the check is number, but the answer {answer} has none. Use exact or contains.": (
        "{where}: check가 number인데 answer {answer}에 수가 없습니다. exact나 contains를 쓰십시오."
    ),
    "{where}: the prompt is empty, so there is nothing to answer. Give a prompt, or choices.": (
        "{where}: prompt가 비어 있어 답할 것이 없습니다. prompt나 choices를 주십시오."
    ),
    "{where}: check {check} goes with answer, and this item has choices. Drop check.": (
        "{where}: check {check}은(는) answer와 쓰는데 이 문항에는 choices가 있습니다. check를 빼십시오."
    ),
    "{where}: choices must be two texts or more, none empty, found {choices}.": (
        "{where}: choices는 비어 있지 않은 글 둘 이상이어야 하는데 {choices}입니다."
    ),
    "{where}: a choice comes twice in {choices}.": "{where}: {choices}에 같은 보기가 두 번 나옵니다.",
    "{where}: label must be the position of the right choice, 0 to {last}, found {label}.": (
        "{where}: label은 옳은 보기의 자리로 0에서 {last}까지인데 {label}입니다."
    ),
    "{where}: group must be text that is not blank or a whole number, found {group}.": (
        "{where}: group은 비어 있지 않은 글이나 정수여야 하는데 {group}입니다."
    ),
    "{where}: all {count} items of skill {skill} are of group {group}, and nothing tells how groups differ. Name in "
    "group what each item is about, or leave it out.": (
        "{where}: 능력 {skill}의 문항 {count}개가 모두 묶음 {group}에 있어 묶음끼리 얼마나 다른지 알 수 없습니다. 각 "
        "문항이 무엇을 다루는지 group에 적거나 빼십시오."
    ),
    "{where}: unknown key {key}.{near} The keys are: {known}.": (
        "{where}: {key}은(는) 모르는 키입니다.{near} 있는 키: {known}."
    ),
    "{where}: {key} must be there and be text, found {value}.": (
        "{where}: {key}은(는) 반드시 있어야 하고 글이어야 하는데 {value}입니다."
    ),
    "{path}: not UTF-8 at byte {at}. Convert it to UTF-8.": (
        "{path}: {at}번째 바이트가 UTF-8이 아닙니다. UTF-8로 바꾸십시오."
    ),
    "{path}: no such file of skills.{near}": "{path}: 그런 능력 문항 파일이 없습니다.{near}",
    "{path}: cannot be read ({error}). Check that it is a file of yours.": (
        "{path}: 읽을 수 없습니다({error}). 읽을 수 있는 파일인지 확인하십시오."
    ),
    '{path}, line {line}: not JSON ({error} at column {column}). Each line holds one object, such as {"skill": '
    '"sums", "prompt": "2 + 2 =", "answer": "4", "check": "number"}.': (
        '{path}의 {line}번째 줄: JSON이 아닙니다({column}번째 칸: {error}). 한 줄에 {"skill": "sums", "prompt": "2 + 2 '
        '=", "answer": "4", "check": "number"} 같은 객체가 하나입니다.'
    ),
    "A prompt of skill {skill} takes {tokens} tokens, more than the context of {context} of {folder}: {prompt}... "
    "Shorten it, or leave it out.": (
        "능력 {skill}의 한 프롬프트가 {tokens}토큰으로 {folder}의 문맥 {context}토큰보다 깁니다: {prompt}... 줄이거나 "
        "빼십시오."
    ),
    # limits and tasks
    "There is no limit {name}.{near} The limits are: {known}.": "한계 {name}은(는) 없습니다.{near} 있는 한계: {known}.",
    "Limit {name} is {value}; it must be a number from {low} to {high} ({figure}).": (
        "한계 {name}이(가) {value}입니다. {low}에서 {high} 사이의 수여야 합니다({figure})."
    ),
    "Limit min_retention was set, but no skills were given to judge it by. Give skills.": (
        "한계 min_retention을 정했지만 판정할 능력 문항이 없습니다. skills를 주십시오."
    ),
    # gates
    "{source} is no gate: a gate is figures with their limits, such as {kl: 0.1, retention: 0.97}, found {value}.": (
        "{source}은(는) 관문이 아닙니다. 관문은 {kl: 0.1, retention: 0.97}처럼 수치와 그 한계인데 {value}이(가) "
        "있습니다."
    ),
    "{source}: there is no figure {name}.{near} The figures are: {known}, and retention.SKILL for one skill.": (
        "{source}: 수치 {name}은(는) 없습니다.{near} 있는 수치: {known}. 능력 하나는 retention.능력이름입니다."
    ),
    "{source}: {name} is {value}; a limit on it is a number from {low} to {high} ({figure}).": (
        "{source}: {name}이(가) {value}입니다. {low}에서 {high} 사이의 수여야 합니다({figure})."
    ),
    "{source}: {name} is measured on text, and none was set aside for gates. Give text.": (
        "{source}: {name}은(는) 글에서 재는데 관문을 위해 떼어 둔 글이 없습니다. 글을 주십시오."
    ),
    "{source}: {name} is measured on questions, and none were set aside for gates. Give skills.": (
        "{source}: {name}은(는) 문항에서 재는데 관문을 위해 떼어 둔 문항이 없습니다. skills를 주십시오."
    ),
    "{source}: no question set aside for gates is of skill {skill}.{near} The skills are: {known}.": (
        "{source}: 관문을 위해 떼어 둔 문항에 능력 {skill}의 것이 없습니다.{near} 있는 능력: {known}."
    ),
    "{model}, the lighter one, gives numbers that are not finite where it answers. Its weights are broken, or "
    "its type overflows: make it again, or in another type.": (
        "경량본 {model}이(가) 답하는 동안 유한하지 않은 수를 냅니다. 가중치가 깨졌거나 타입이 넘쳤으니 다시 "
        "만들거나 다른 타입으로 만드십시오."
    ),
    "{model} has a context of {context} tokens: too few to time it. Leave speed and memory out.": (
        "{model}의 문맥은 {context}토큰이라 속도를 재기에 모자랍니다. 속도와 메모리를 빼십시오."
    ),
    "--limit {item}: a limit is NAME=VALUE with a number, or off, such as max_kl=0.05.": (
        "--limit {item}: 한계는 max_kl=0.05처럼 이름=값이며 값은 수나 off입니다."
    ),
    "Tasks are run by lm-evaluation-harness, which is not installed ({error}). Install it with: pip install "
    '"whet[tasks]"': (
        '과제는 lm-evaluation-harness가 돌리는데 설치되어 있지 않습니다({error}). 설치: pip install "whet[tasks]"'
    ),
    "Tasks are run on model folders, and {path} is none. Leave them out.": (
        "과제는 모델 폴더에서 돌리는데 {path}은(는) 폴더가 아닙니다. 과제를 빼십시오."
    ),
    "Tasks are run on folders, and {path} is a .gguf. Leave tasks out, or give its folder.": (
        "과제는 폴더에서 돌리는데 {path}은(는) .gguf입니다. 과제를 빼거나 그 폴더를 주십시오."
    ),
    "The harness refused the tasks {tasks}: {error}. See: lm-eval ls tasks": (
        "lm-evaluation-harness가 과제 {tasks}을(를) 받지 않습니다: {error}. 목록: lm-eval ls tasks"
    ),
    "The data of {tasks} cannot be had ({error}). Check the network.": (
        "{tasks}의 데이터를 얻을 수 없습니다({error}). 네트워크를 확인하십시오."
    ),
    # comparing
    "There is no text to compare on. Give a text that neither model was made with (--text FILE), of the kind the "
    "model is used for.": (
        "비교할 글이 없습니다. 두 모델을 만드는 데 쓰지 않은, 모델을 쓸 곳과 같은 종류의 글을 주십시오(--text FILE)."
    ),
    "{folder} gives one answer a text and no token, so there is no token to compare. whet compress tells the KL of "
    "its answers on text that was kept out of solving.": (
        "{folder}은(는) 토큰이 아니라 글마다 답 하나를 내므로 비교할 토큰이 없습니다. whet compress가 푸는 데 쓰지 "
        "않은 글에서 답의 KL을 알려 줍니다."
    ),
    "Comparing needs about {needs} GB of memory for both models side by side, and {free} GB are free. Use a smaller "
    "type (dtype bfloat16), or a machine with more memory.": (
        "두 모델을 나란히 비교하려면 메모리가 약 {needs} GB 필요한데 {free} GB가 비어 있습니다. 더 작은 타입(dtype "
        "bfloat16)이나 메모리가 더 많은 기계를 쓰십시오."
    ),
    "{lighter} and {original} have different tokenizers ({count} tokens differ), so their predictions cannot be "
    "compared token by token. Give the original that the lighter model was made from.": (
        "{lighter}와(과) {original}의 토크나이저가 달라(토큰 {count}개가 다름) 예측을 토큰마다 비교할 수 없습니다. "
        "경량본을 만든 원본을 주십시오."
    ),
    "There is no window of two tokens or more to compare on. Give more text.": (
        "비교할 두 토큰 이상의 창이 없습니다. 글을 더 주십시오."
    ),
    "The text has token {token}, but {original} and {lighter} share only the first {width} of their vocabularies. "
    "Compare a model with its own original, which has the same tokenizer.": (
        "글에 {token}번 토큰이 있는데 {original}와(과) {lighter}은(는) 어휘의 처음 {width}개만 같습니다. 토크나이저가 "
        "같은 원본과 비교하십시오."
    ),
    "{folder} ({which}): a logit is not finite in window {window} after token {token}. Its weights are broken, or "
    "its type overflows: compare in float32 to tell which, then compress again.": (
        "{folder} ({which}): 창 {window}의 {token}번 토큰 뒤에서 로짓이 유한하지 않습니다. 가중치가 깨졌거나 타입이 "
        "넘쳤으니 float32로 비교해 가려 보고 다시 압축하십시오."
    ),
    "{folder} ({which}): a logit is not finite in window {window} after token {token}. Its weights are broken, or "
    "its type overflows: compare in float32 to tell which, then download the model again.": (
        "{folder} ({which}): 창 {window}의 {token}번 토큰 뒤에서 로짓이 유한하지 않습니다. 가중치가 깨졌거나 타입이 "
        "넘쳤으니 float32로 비교해 가려 보고 모델을 다시 내려받으십시오."
    ),
    "the lighter model": "경량본",
    "the original": "원본",
    "the text": "글",
}
