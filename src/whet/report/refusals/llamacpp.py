"""Errors of .gguf files, of exporting to them and of running models in Korean."""

from __future__ import annotations

LLAMACPP: dict[str, str] = {
    # reading a .gguf
    "{path} does not exist.{near} Give a .gguf file or a model folder.": (
        "{path}이(가) 없습니다.{near} .gguf 파일이나 모델 폴더를 주십시오."
    ),
    "{path} was made to run with the adapter {name} beside it, which is not there. Put it into {folder}, or export "
    "the folder again.": (
        "{path}은(는) 곁의 어댑터 {name}와(과) 함께 쓰도록 만든 것인데 그것이 없습니다. {folder}에 넣거나 폴더를 다시 "
        "내보내십시오."
    ),
    "{path} became shorter while it was read. Is something else writing to it?": (
        "{path}이(가) 읽는 동안 짧아졌습니다. 다른 것이 거기에 쓰고 있습니까?"
    ),
    "{path} is not a whole .gguf file: {why}. Download or export it again.": (
        "{path}은(는) 온전한 .gguf 파일이 아닙니다: {why}. 다시 내려받거나 내보내십시오."
    ),
    "{what} claims a length of {length} bytes": "{what}의 길이가 {length}바이트라고 합니다",
    "{what} needs {count} bytes and {left} are left": "{what}에 {count}바이트가 필요한데 {left}바이트가 남았습니다",
    "it ends within {what}": "{what} 도중에 끝납니다",
    "it does not begin with GGUF": "GGUF로 시작하지 않습니다",
    "it is written for big-endian machines, and versions {versions} are read": (
        "빅엔디언 기계용인데 읽을 수 있는 버전은 {versions}입니다"
    ),
    "it has version {version}, and versions {versions} are read": (
        "버전이 {version}인데 읽을 수 있는 버전은 {versions}입니다"
    ),
    "it claims {count} tensors, more than {left} bytes can hold": (
        "텐서가 {count}개라는데 남은 {left}바이트에 담길 수 없습니다"
    ),
    "it claims {count} entries, more than {left} bytes can hold": (
        "항목이 {count}개라는데 남은 {left}바이트에 담길 수 없습니다"
    ),
    "{key} claims {count} items, more than {left} bytes can hold": (
        "{key}의 항목이 {count}개라는데 남은 {left}바이트에 담길 수 없습니다"
    ),
    "the entry {key} is there twice": "항목 {key}이(가) 두 번 나옵니다",
    "general.alignment is {alignment}, not a power of two": (
        "general.alignment가 2의 거듭제곱이 아니라 {alignment}입니다"
    ),
    "tensor {name} is there twice": "텐서 {name}이(가) 두 번 나옵니다",
    "tensor {name} begins at {offset} instead of {position}: it overlaps or leaves a hole": (
        "텐서 {name}이(가) {position} 대신 {offset}에서 시작해 겹치거나 빈 곳을 남깁니다"
    ),
    "tensor {name} ends at {end}, the file at {size} (cut off?)": (
        "텐서 {name}은(는) {end}에서, 파일은 {size}에서 끝납니다(끊겼습니까?)"
    ),
    "{key} is a list of type {type}, which does not exist or is a list itself": (
        "{key}은(는) 타입 {type}의 목록인데 그런 타입이 없거나 그것도 목록입니다"
    ),
    "{key} has type {type}, which does not exist": "{key}의 타입 {type}은(는) 없는 타입입니다",
    "tensor {name} claims {count} dimensions": "텐서 {name}이(가) {count}차원이라고 합니다",
    "tensor {name} has type {type}, which whet does not know": "텐서 {name}의 타입 {type}을(를) whet이 모릅니다",
    "tensor {name} claims the shape {shape}": "텐서 {name}의 모양이 {shape}(이)라고 합니다",
    "tensor {name} has rows of {length}, which {type} cannot hold (blocks of {size})": (
        "텐서 {name}의 행은 {length}개씩인데 {type}은(는) {size}개 블록이라 담지 못합니다"
    ),
    "{key} is not a list of strings": "{key}은(는) 문자열의 목록이 아닙니다",
    "{key} is not a list of {type}": "{key}은(는) {type}의 목록이 아닙니다",
    "{key} has {count} items for {tokens} tokens": "토큰은 {tokens}개인데 {key}의 항목은 {count}개입니다",
    "{what} is not UTF-8": "{what}이(가) UTF-8이 아닙니다",
    "the mark GGUF": "GGUF 표시",
    "the version": "버전",
    "the number of tensors": "텐서의 수",
    "the number of entries": "항목의 수",
    "a key": "키",
    "the type of {key}": "{key}의 타입",
    "the length of {key}": "{key}의 길이",
    "an item of {key}": "{key}의 항목",
    "the name of a tensor": "텐서의 이름",
    "the dimensions of {name}": "{name}의 차원",
    "the shape of {name}": "{name}의 모양",
    "the place of {name}": "{name}의 자리",
    # what the architecture cannot express
    "{source} is of the family {family}, which whet does not write as .gguf. Families it writes: {known}.": (
        "{source}은(는) {family} 계열인데 whet은 그 계열을 .gguf로 쓰지 않습니다. 쓰는 계열: {known}."
    ),
    "{source} cannot be written as a .gguf of the architecture {name}: {why}. Use another runtime (--for "
    "transformers).": (
        "{source}을(를) 구조 {name}의 .gguf로 쓸 수 없습니다: {why}. 다른 런타임을 쓰십시오(--for transformers)."
    ),
    "its activation is {act}, llama.cpp computes {theirs}": (
        "활성 함수가 {act}인데 llama.cpp는 {theirs}을(를) 계산합니다"
    ),
    "its heads are not as wide together as its hidden states": "헤드의 너비를 더하면 은닉 상태의 너비와 다릅니다",
    "its head is a tensor of its own, and llama.cpp reads the embedding instead": (
        "출력층이 따로 있는데 llama.cpp는 그 대신 임베딩을 읽습니다"
    ),
    "norm_topk_prob is false, and llama.cpp always divides the experts' weights by their sum": (
        "norm_topk_prob가 false인데 llama.cpp는 늘 전문가의 가중을 그 합으로 나눕니다"
    ),
    "some of its blocks have no experts, which llama.cpp does not expect in this family": (
        "전문가가 없는 블록이 있는데, 이 계열에서 llama.cpp는 그런 블록을 예상하지 않습니다"
    ),
    "its blocks do not alternate as llama.cpp expects (one in {every} attends to everything)": (
        "블록이 llama.cpp의 예상({every}개에 하나가 전체를 봄)대로 번갈아 놓이지 않았습니다"
    ),
    "query_pre_attn_scalar is {value}, llama.cpp takes {expected}": (
        "query_pre_attn_scalar가 {value}인데 llama.cpp는 {expected}을(를) 씁니다"
    ),
    "it attends in both directions": "양쪽 방향으로 어텐션을 합니다",
    "it has no cap on logits, and llama.cpp always applies one in this family": (
        "로짓에 상한이 없는데, 이 계열에서 llama.cpp는 늘 상한을 둡니다"
    ),
    "it caps attention logits, which llama.cpp does not in this family": (
        "어텐션 로짓에 상한을 두는데, 이 계열에서 llama.cpp는 두지 않습니다"
    ),
    "it scales attention in a way that llama.cpp does not": "llama.cpp와 다르게 어텐션을 스케일합니다",
    "its local rotary frequencies are scaled ({type})": "국소 회전 주파수가 스케일되어 있습니다({type})",
    "its rotary frequencies are scaled by {type}, which whet does not write": (
        "회전 주파수가 {type}(으)로 스케일되는데 whet은 그것을 쓰지 않습니다"
    ),
    # what the tokenizer does
    "{source}: its tokenizer has no fast form (tokenizer.json), and the .gguf is made from that.": (
        "{source}: 토크나이저에 .gguf를 만드는 데 쓰는 빠른 형식(tokenizer.json)이 없습니다."
    ),
    "{source}: its tokenizer {why}, so llama.cpp would read other tokens than the model knows. It cannot be written "
    "as a .gguf.": (
        "{source}: 토크나이저가 {why}, llama.cpp는 모델이 아는 것과 다른 토큰을 읽게 됩니다. .gguf로 쓸 수 없습니다."
    ),
    "is a {kind}, and llama.cpp has none such": "llama.cpp에 없는 {kind}(이)어서",
    "splits text in a way that is not in whet's table of those llama.cpp knows ({steps})": (
        "llama.cpp가 아는 것을 적은 whet의 표에 없는 방식({steps})으로 글을 나누어"
    ),
    "normalizes text ({steps}), which llama.cpp does not do before byte-level BPE": (
        "llama.cpp가 바이트 BPE 앞에서 하지 않는 정규화({steps})를 하여"
    ),
    "normalizes text by {step}, which llama.cpp does not": "llama.cpp가 하지 않는 {step}(으)로 글을 정규화하여",
    "is a BPE over characters without bytes for those it does not know": (
        "모르는 글자를 바이트로 나누지 않는 글자 BPE여서"
    ),
    "splits text by {step}, which llama.cpp does not for such a vocabulary": (
        "이런 어휘에서 llama.cpp가 하지 않는 {step}(으)로 글을 나누어"
    ),
    "does not write spaces as ▁": "공백을 ▁로 적지 않아",
    "has a {key}, which llama.cpp does not know": "llama.cpp가 모르는 {key}을(를) 써서",
    "puts several tokens before or after a text": "글의 앞이나 뒤에 토큰을 여럿 두어",
    "names no token that ends a text, and llama.cpp would take another one for it": "글을 끝내는 토큰을 정하지 않아",
    # writing a .gguf
    "{source}: no type of ggml that whet writes holds {lost}, and rounding again would change the weights that were "
    "judged. Compress with --for llama.cpp, which takes ggml's own types.": (
        "{source}: whet이 쓰는 ggml 타입 가운데 {lost}을(를) 담는 것이 없고, 다시 반올림하면 판정한 가중치가 바뀝니다. "
        "ggml의 타입을 쓰는 --for llama.cpp로 압축하십시오."
    ),
    "{scheme} ({count} linears, first {name})": "{scheme} (선형층 {count}개, 처음은 {name})",
    "its scheme": "그 방식",
    "{address} has weights that exceed what {type} holds. Use --type bf16.": (
        "{address}에 {type}(으)로 담을 수 없이 큰 가중치가 있습니다. --type bf16을 쓰십시오."
    ),
    "{address}: its scales are stored as {type} and are no float16 numbers, which {block} needs; rounding them "
    "would change the weights that were judged. Compress again with --for llama.cpp, which solves on float16 scales.": (
        "{address}: 스케일이 {type}(으)로 저장되었고 {block}에 필요한 float16 수가 아닙니다. 반올림하면 판정한 "
        "가중치가 바뀌니, float16 스케일로 푸는 --for llama.cpp로 다시 압축하십시오."
    ),
    "{folder} was quantized by another tool. whet exports originals and its own folders.": (
        "{folder}은(는) 다른 도구로 양자화한 것입니다. whet은 원본과 whet이 만든 폴더를 내보냅니다."
    ),
    "{folder} is a lighter model: its types were decided when it was made, and an export does not round again. "
    "Leave --type out.": (
        "{folder}은(는) 경량본이라 타입이 만들 때 정해졌고, 내보내기는 다시 반올림하지 않습니다. --type을 빼십시오."
    ),
    "{type} is no type for an original: give f32, f16 or bf16, or compress it for the others.": (
        "{type}은(는) 원본에 쓰는 타입이 아닙니다. f32, f16, bf16을 주거나, 다른 타입이면 압축하십시오."
    ),
    "{folder} has no embedding that llama.cpp knows. The folder is incomplete; download it again.": (
        "{folder}에 llama.cpp가 아는 임베딩이 없습니다. 폴더가 온전하지 않으니 다시 내려받으십시오."
    ),
    "{path}: the file's tensors are not those that were planned. This is a defect of whet.": (
        "{path}: 파일의 텐서가 계획한 것과 다릅니다. whet의 결함입니다."
    ),
    "{folder}: its adapter names {module}, which has no place in {name} of llama.cpp.": (
        "{folder}: 어댑터의 {module}이(가) 들어갈 자리가 llama.cpp의 {name}에 없습니다."
    ),
    "{folder}: tensor {tensor} has no place in the architecture {name} of llama.cpp. It cannot be written as a "
    ".gguf.": "{folder}: 텐서 {tensor}이(가) 들어갈 자리가 llama.cpp의 구조 {name}에 없어 .gguf로 쓸 수 없습니다.",
    "{folder}: its head differs from the embedding, and llama.cpp reads the embedding instead in the architecture "
    "{name}. It cannot be written as a .gguf.": (
        "{folder}: 출력층이 임베딩과 다른데 llama.cpp는 구조 {name}에서 그 대신 임베딩을 읽습니다. .gguf로 쓸 수 "
        "없습니다."
    ),
    "{tensor}: its experts have several types ({types}), and the file holds them as one tensor of one type. Give "
    "all experts of a block the same scheme.": (
        "{tensor}: 전문가의 타입이 여럿인데({types}) 파일은 그것을 한 타입의 한 텐서로 담습니다. 블록의 모든 전문가에 "
        "같은 방식을 주십시오."
    ),
    # exporting
    "Format {name} is not known.{near} Formats: {known}.": "{name}은(는) 모르는 형식입니다.{near} 형식: {known}.",
    "{file} is there already. Name another file with --out, or remove it.": (
        "{file}이(가) 이미 있습니다. --out으로 다른 파일을 주거나 지우십시오."
    ),
    "{file} cannot be made: {folder} is no folder. Make it first, or name another file.": (
        "{file}을(를) 만들 수 없습니다. {folder}은(는) 폴더가 아닙니다. 먼저 만들거나 다른 파일을 주십시오."
    ),
    "The disk of {file} has {free} MB free; the file needs {needs} MB. Free some space or choose another disk.": (
        "{file}의 디스크에 {free} MB가 비어 있는데 파일에 {needs} MB가 필요합니다. 자리를 비우거나 다른 디스크를 "
        "고르십시오."
    ),
    "{path}: tensor {name} ({type}) is not what the folder holds. This is a defect of whet; please report it with "
    "the family and the scheme.": (
        "{path}: 텐서 {name} ({type})이(가) 폴더가 담은 것과 다릅니다. whet의 결함이니 계열과 방식을 적어 알려 "
        "주십시오."
    ),
    "{path}: llama.cpp reads {text} as other tokens than the model's tokenizer (from token {at}: {theirs} instead "
    "of {mine}), so it cannot be written for llama.cpp.": (
        "{path}: llama.cpp는 {text}을(를) 모델의 토크나이저와 다른 토큰으로 읽습니다({at}번 토큰부터 {mine} 대신 "
        "{theirs}). llama.cpp용으로 쓸 수 없습니다."
    ),
    "{path}: llama.cpp computes logits that are not finite. A type overflows: try --type bf16.": (
        "{path}: llama.cpp가 유한하지 않은 로짓을 냅니다. 타입이 넘친 것이니 --type bf16을 써 보십시오."
    ),
    "{path}: llama.cpp's odds on the next token differ from the folder's by KL {kl} nats a token, more than the "
    "arithmetic of its types explains ({most}). The architecture {name} may compute something else for this config; "
    "please report it.": (
        "{path}: 다음 토큰의 확률이 llama.cpp와 폴더 사이에 토큰당 KL {kl} nat만큼 달라, 타입의 연산으로 설명되는 "
        "것({most})보다 큽니다. 구조 {name}이(가) 이 config에서 다른 것을 계산하는 듯하니 알려 주십시오."
    ),
    "{path}: llama.cpp goes on with another text than the folder after {prompt}: {theirs} instead of {mine}.": (
        "{path}: {prompt} 다음에 llama.cpp가 폴더와 다른 글을 씁니다: {mine} 대신 {theirs}."
    ),
    # running
    "{path} is no language model: its header names no architecture or no tokens.": (
        "{path}은(는) 언어 모델이 아닙니다. 헤더에 구조나 토큰이 없습니다."
    ),
    "Reading {path} needs llama.cpp, which is not installed here ({error}). Install it: pip install "
    "'whet[llamacpp]' (it is compiled for this machine, which takes some minutes and a C++ compiler).": (
        "{path}을(를) 읽으려면 llama.cpp가 필요한데 설치되어 있지 않습니다({error}). 설치: pip install "
        "'whet[llamacpp]' (이 기계에 맞게 컴파일하므로 몇 분이 걸리고 C++ 컴파일러가 필요합니다)."
    ),
    "Comparing {path} needs llama.cpp, which is not installed here. Install it: pip install 'whet[llamacpp]' (it is "
    "compiled for this machine, which takes some minutes and a C++ compiler).": (
        "{path}을(를) 비교하려면 llama.cpp가 필요한데 설치되어 있지 않습니다. 설치: pip install 'whet[llamacpp]' (이 "
        "기계에 맞게 컴파일하므로 몇 분이 걸리고 C++ 컴파일러가 필요합니다)."
    ),
    "llama.cpp does not load {path}: {why}.": "llama.cpp가 {path}을(를) 열지 못합니다: {why}.",
    "it does not say why": "이유는 말하지 않습니다",
    "{path}: llama.cpp cannot tokenize the text {text}.": (
        "{path}: llama.cpp가 글 {text}을(를) 토큰으로 나누지 못합니다."
    ),
    "{path}: llama.cpp has no room for {count} sequences of {length} tokens. Ask for shorter or fewer windows, or "
    "close other programs.": (
        "{path}: llama.cpp에 {length}토큰짜리 {count}개가 들어갈 자리가 없습니다. 창을 짧거나 적게 하거나 다른 "
        "프로그램을 닫으십시오."
    ),
    "{path}: llama.cpp could not compute {count} tokens (code {code}). A token may be outside its vocabulary of "
    "{vocabulary}, or the text longer than its context of {context}.": (
        "{path}: llama.cpp가 토큰 {count}개를 계산하지 못했습니다(코드 {code}). 토큰이 어휘 {vocabulary}개를 "
        "벗어나거나 글이 문맥 {context}토큰보다 긴 듯합니다."
    ),
    "{path}: the model gives logits that are not finite while generating. Its weights are broken, or a type "
    "overflows: export it again from its folder, or in another type.": (
        "{path}: 글을 쓰는 동안 모델이 유한하지 않은 로짓을 냅니다. 가중치가 깨졌거나 타입이 넘쳤으니 폴더에서 다시 "
        "내보내거나 다른 타입을 쓰십시오."
    ),
    "{folder}: the model gives logits that are not finite while generating. Its weights are broken, or its type "
    "overflows: try float32, or make it again.": (
        "{folder}: 글을 쓰는 동안 모델이 유한하지 않은 로짓을 냅니다. 가중치가 깨졌거나 타입이 넘쳤으니 float32를 써 "
        "보거나 다시 만드십시오."
    ),
    "The prompt is empty. Give some words to continue.": "프롬프트가 비었습니다. 이어 쓸 말을 주십시오.",
    "{path} runs in llama.cpp, which whet runs on the processor. Leave --device out.": (
        "{path}은(는) llama.cpp에서 돌고, whet은 그것을 프로세서에서 돌립니다. --device를 빼십시오."
    ),
    "max_new_tokens {tokens}, temperature {temperature}, top_p {top_p}: they must be at least 1, at least 0, and "
    "above 0 up to 1.": (
        "max_new_tokens {tokens}, temperature {temperature}, top_p {top_p}: 차례로 1 이상, 0 이상, 0보다 크고 1 "
        "이하여야 합니다."
    ),
    "{where}: a prompt of {longest} tokens and {tokens} new ones exceed the model's context of {context}. Shorten "
    "the prompt, or ask for fewer new tokens.": (
        "{where}: 프롬프트 {longest}토큰에 새 토큰 {tokens}개를 더하면 모델의 문맥 {context}토큰을 넘습니다. "
        "프롬프트를 줄이거나 새 토큰을 적게 하십시오."
    ),
    "A prompt without tokens cannot be continued. Give some words.": (
        "토큰이 없는 프롬프트는 이어 쓸 수 없습니다. 말을 주십시오."
    ),
    "dtype {dtype} is not known. Use one of: {known}.": (
        "{dtype}은(는) 모르는 dtype입니다. 다음 가운데 하나를 쓰십시오: {known}."
    ),
    "Device {device} is not known. Use auto, cpu or cuda.": (
        "{device}은(는) 모르는 장치입니다. auto, cpu, cuda 가운데 하나를 쓰십시오."
    ),
    "Device cuda was asked for, but PyTorch sees no GPU here. Use --device cpu, or auto.": (
        "cuda를 요구했지만 PyTorch가 찾은 GPU가 없습니다. --device cpu나 auto를 쓰십시오."
    ),
    "{folder} is a {kind}, which fills in or judges text and does not continue it. Use whet compare to see what it "
    "kept.": (
        "{folder}은(는) {kind}이라 글을 채우거나 판정할 뿐 이어 쓰지 않습니다. 무엇을 지켰는지는 whet compare로 "
        "보십시오."
    ),
}
