"""Errors of models and their folders in Korean: what is missing, damaged or of another model."""

from __future__ import annotations

MODELS: dict[str, str] = {
    # what the model is made of
    "{source} is already quantized ({method}), so its weights are not the original's any more. Give whet the "
    "original (unquantized) checkpoint; it is usually named in the model card as base_model.": (
        "{source}은(는) 이미 양자화되어({method}) 가중치가 원본의 것이 아닙니다. 양자화하지 않은 원본을 주십시오. 대개 "
        "모델 카드에 base_model로 적혀 있습니다."
    ),
    "{source} is of the family {family}, which neither whet nor transformers knows.{near} Families: {known}.": (
        "{source}은(는) {family} 계열인데 whet도 transformers도 모르는 계열입니다.{near} 아는 계열: {known}."
    ),
    "'(none named)'": "'(이름 없음)'",
    "{source}: config.json says {key} = {count}, not a number of blocks. Download it again.": (
        "{source}: config.json의 {key} = {count}은(는) 블록 수가 아닙니다. 다시 내려받으십시오."
    ),
    "{source}: {name} and {other} are the same tensor under two names. The folder is a mix of two downloads; "
    "download it again.": (
        "{source}: {name}와(과) {other}은(는) 이름만 다른 같은 텐서입니다. 두 번 내려받은 것이 섞인 폴더이니 다시 "
        "내려받으십시오."
    ),
    "{source}: config.json says {key} = {count}, the weight files hold {blocks} blocks named {stack}.<n>. One of "
    "the two is from another model; download the folder again.": (
        "{source}: config.json에는 {key} = {count}인데 가중치 파일에는 {stack}.<n>이라는 블록이 {blocks}개 있습니다. "
        "둘 가운데 하나는 다른 모델의 것이니 폴더를 다시 내려받으십시오."
    ),
    "{source}: its embedding is {embedding} wide and its blocks are {width}, with a projection in between. No "
    "{family} that whet knows has one; use a checkpoint where the two are alike.": (
        "{source}: 임베딩의 너비는 {embedding}, 블록은 {width}이고 그 사이에 사영이 있습니다. whet이 아는 {family}에는 "
        "그런 것이 없으니 두 너비가 같은 체크포인트를 쓰십시오."
    ),
    "{source}: tensor {name} is missing, and config.json does not tie it to the embedding. The folder is "
    "incomplete: download it again (or set tie_word_embeddings to true, if the model was trained so).": (
        "{source}: 텐서 {name}이(가) 없는데 config.json은 그것을 임베딩과 묶지 않습니다. 폴더가 온전하지 않으니 다시 "
        "내려받으십시오(그렇게 훈련한 모델이면 tie_word_embeddings를 true로 고치십시오)."
    ),
    "{source}: tensor {name} is missing. The folder is incomplete or config.json names another family; download it "
    "again.": (
        "{source}: 텐서 {name}이(가) 없습니다. 폴더가 온전하지 않거나 config.json의 계열이 다르니 다시 내려받으십시오."
    ),
    "{source}: tensor {name} has shape {shape} instead of two dimensions. The folder is incomplete or config.json "
    "names another family; download it again.": (
        "{source}: 텐서 {name}의 모양이 2차원이 아니라 {shape}입니다. 폴더가 온전하지 않거나 config.json의 계열이 "
        "다르니 다시 내려받으십시오."
    ),
    "{source}: config.json says {key} = {value}. Download it again.": (
        "{source}: config.json의 {key} = {value}은(는) 쓸 수 없는 값입니다. 다시 내려받으십시오."
    ),
    "{source}: the {rows} rows of {name} are not {shares} equal parts, as config.json says. Weights and config are "
    "of different models; download the folder again.": (
        "{source}: {name}의 행 {rows}개는 config.json이 말하는 {shares}등분이 되지 않습니다. 가중치와 config가 서로 "
        "다른 모델의 것이니 폴더를 다시 내려받으십시오."
    ),
    "config.json says {key} = {value}, which {rows} rows are not of": (
        "config.json의 {key} = {value}은(는) 행 {rows}개와 맞지 않습니다"
    ),
    "{name} gives {given} channels and {read} are read": "{name}은(는) 채널 {given}개를 내는데 {read}개가 읽힙니다",
    # adapters
    "{file}: {module} has no pair of matrices that fit. Download the folder again.": (
        "{file}: {module}에 짝이 맞는 두 행렬이 없습니다. 폴더를 다시 내려받으십시오."
    ),
    "{file} holds other tensors than pairs of matrices. Download the folder again.": (
        "{file}에 짝을 이룬 행렬이 아닌 텐서가 있습니다. 폴더를 다시 내려받으십시오."
    ),
    "The adapter names {name}, which the model does not have. Download the folder again.": (
        "어댑터가 모델에 없는 {name}을(를) 가리킵니다. 폴더를 다시 내려받으십시오."
    ),
    "The adapter of {name} is for {rows} rows of {columns}, which the model's are not. Download the folder again.": (
        "{name}의 어댑터는 길이 {columns}의 행 {rows}개에 맞춘 것인데 모델의 모양은 다릅니다. 폴더를 다시 "
        "내려받으십시오."
    ),
    "{folder}: whet.json names an adapter, and {file} is missing. Copy the folder again, with the folders in it.": (
        "{folder}: whet.json에는 어댑터가 있는데 {file}이(가) 없습니다. 안의 폴더까지 다시 복사하십시오."
    ),
    # files
    "{file} is not a whole safetensors file: {why}. Download it again.": (
        "{file}은(는) 온전한 safetensors 파일이 아닙니다: {why}. 다시 내려받으십시오."
    ),
    "it has {size} bytes": "{size}바이트뿐입니다",
    "its header claims {length} bytes, the file has {size}": "헤더가 {length}바이트라는데 파일은 {size}바이트입니다",
    "its header is not JSON": "헤더가 JSON이 아닙니다",
    "its header is not a table": "헤더가 표가 아닙니다",
    "the entry of tensor {name} cannot be read ({error})": "텐서 {name}의 항목을 읽을 수 없습니다({error})",
    "tensor {name} has a negative or non-integer size": "텐서 {name}의 크기가 음수이거나 정수가 아닙니다",
    "tensor {name} of shape {shape} needs {bytes} bytes, not {have}": (
        "모양 {shape}인 텐서 {name}은(는) {have}바이트가 아니라 {bytes}바이트여야 합니다"
    ),
    "tensor {name} overlaps another or leaves a hole": "텐서 {name}이(가) 다른 것과 겹치거나 빈 곳을 남깁니다",
    "its tensors need {position} bytes, the file has {size} (a download that was cut off?)": (
        "텐서는 {position}바이트인데 파일은 {size}바이트입니다(내려받다 끊겼습니까?)"
    ),
    "{file} became shorter while it was read. Is something else writing to the folder?": (
        "{file}이(가) 읽는 동안 짧아졌습니다. 다른 것이 폴더에 쓰고 있습니까?"
    ),
    "The disk that holds {path} is full. Free some space and give the same command again: a run goes on where it "
    "stopped.": "{path}이(가) 있는 디스크가 찼습니다. 자리를 비우고 같은 명령을 다시 주십시오. 멈춘 데서 이어집니다.",
    "{path} cannot be written ({error}). Choose a folder you may write to.": (
        "{path}에 쓸 수 없습니다({error}). 쓸 수 있는 폴더를 고르십시오."
    ),
    # folders
    "{folder} is a finished file, to be compared and asked to generate. Give the folder it was made from.": (
        "{folder}은(는) 다 만든 파일이라 비교하거나 글을 쓰게 하는 데만 씁니다. 그것을 만든 폴더를 주십시오."
    ),
    "{folder} is a file. Give the folder that holds config.json and the weights.": (
        "{folder}은(는) 파일입니다. config.json과 가중치가 든 폴더를 주십시오."
    ),
    "{what}. Give the folder that holds config.json and the weights.": (
        "{what}. config.json과 가중치가 든 폴더를 주십시오."
    ),
    "{folder} is not a model folder: it has no config.json": "{folder}에 config.json이 없어 모델 폴더가 아닙니다",
    "{folder} does not exist.{near} Give a model folder, or a hub name such as organisation/model.": (
        "{folder}이(가) 없습니다.{near} 모델 폴더나 organisation/model 같은 허브 이름을 주십시오."
    ),
    "{folder} holds no model.safetensors.": "{folder}에 model.safetensors가 없습니다.",
    "{folder} holds no model.safetensors. It has {file}, which whet does not read: convert it to safetensors first.": (
        "{folder}에 model.safetensors가 없습니다. whet이 읽지 않는 {file}이(가) 있으니 먼저 safetensors로 바꾸십시오."
    ),
    "{folder} has shards ({count} of {whole}) but no model.safetensors.index.json. The download or the run that "
    "wrote it is not finished.": (
        "{folder}에 조각은 있는데({whole}개 가운데 {count}개) model.safetensors.index.json이 없습니다. 내려받기나 "
        "그것을 쓰던 실행이 끝나지 않았습니다."
    ),
    "{folder}: the index names {name}, which is outside the folder. Do not use this model.": (
        "{folder}: 색인이 폴더 밖의 {name}을(를) 가리킵니다. 이 모델을 쓰지 마십시오."
    ),
    "{folder}: shard {name} is missing although the index names it. Download it again.": (
        "{folder}: 색인에 있는 조각 {name}이(가) 없습니다. 다시 내려받으십시오."
    ),
    "{folder}: tensor {name} is in {file} and in another file. Download again.": (
        "{folder}: 텐서 {name}이(가) {file}에도 있고 다른 파일에도 있습니다. 다시 내려받으십시오."
    ),
    "{folder}: the index names {count} tensors that no shard holds (first {name}). The folder is a mix of two "
    "downloads; download it again.": (
        "{folder}: 색인에 있는 텐서 {count}개가 어느 조각에도 없습니다(처음은 {name}). 두 번 내려받은 것이 섞인 "
        "폴더이니 다시 내려받으십시오."
    ),
    "{index} has no weight_map of names to files. Download it again.": (
        "{index}에 이름과 파일을 잇는 weight_map이 없습니다. 다시 내려받으십시오."
    ),
    "{file}: tensor {name} has {count} weights that are NaN or infinite. Such a model computes nothing; download "
    "the file again, or ask whoever trained it.": (
        "{file}: 텐서 {name}의 가중치 {count}개가 NaN이거나 무한대입니다. 이런 모델은 아무것도 계산하지 못하니 파일을 "
        "다시 내려받거나 훈련한 이에게 물으십시오."
    ),
    "{file} has format {format}; this whet reads format 1. Update whet.": (
        "{file}의 format은 {format}인데 이 whet은 1을 읽습니다. whet을 업데이트하십시오."
    ),
    "The hub has no model {name} that you may read. Check the name, or log in.": (
        "허브에 읽을 수 있는 모델 {name}이(가) 없습니다. 이름을 확인하거나 로그인하십시오."
    ),
    "{name} is not a folder here, and the hub could not be asked ({error}). Check the path, or the network.": (
        "{name}은(는) 여기 있는 폴더가 아닌데 허브에 물을 수도 없었습니다({error}). 경로나 네트워크를 확인하십시오."
    ),
    "{file} is not valid JSON ({error}). Download it again.": (
        "{file}은(는) 올바른 JSON이 아닙니다({error}). 다시 내려받으십시오."
    ),
    "{file} is not a JSON object. Download it again.": "{file}은(는) JSON 객체가 아닙니다. 다시 내려받으십시오.",
    # loading
    "{file} says {key} = {value}, and the weight files hold {count} tensors. The config is damaged; download it "
    "again.": (
        "{file}에는 {key} = {value}인데 가중치 파일의 텐서는 {count}개입니다. config가 깨졌으니 다시 내려받으십시오."
    ),
    "{folder} was quantized by another tool. whet loads originals and its own folders.": (
        "{folder}은(는) 다른 도구로 양자화한 것입니다. whet은 원본과 whet이 만든 폴더를 엽니다."
    ),
    "{folder}: no file holds {names}. The folder is incomplete.": (
        "{folder}: {names}이(가) 어느 파일에도 없습니다. 온전하지 않은 폴더입니다."
    ),
    "{folder} has no tokenizer ({file} or the like). Put tokenizer.json and tokenizer_config.json of the model into "
    "the folder.": (
        "{folder}에 토크나이저가 없습니다({file} 같은 파일). 모델의 tokenizer.json과 tokenizer_config.json을 폴더에 "
        "넣으십시오."
    ),
    "{folder} has no tokenizer that transformers can load ({error}). Put tokenizer.json and tokenizer_config.json "
    "of the model into the folder.": (
        "{folder}에 transformers가 여는 토크나이저가 없습니다({error}). 모델의 tokenizer.json과 "
        "tokenizer_config.json을 폴더에 넣으십시오."
    ),
    "{file}: transformers cannot build a model from it ({error}). Download it again, or mend the entry it names.": (
        "{file}: transformers가 이것으로 모델을 만들지 못합니다({error}). 다시 내려받거나 거기서 말하는 항목을 "
        "고치십시오."
    ),
    "{folder}: tensor {name} has shape {shape}, config.json asks for {asked}. Weights and config are of different "
    "models; download the folder again.": (
        "{folder}: 텐서 {name}의 모양은 {shape}인데 config.json은 {asked}을(를) 요구합니다. 가중치와 config가 서로 "
        "다른 모델의 것이니 폴더를 다시 내려받으십시오."
    ),
    "{folder}: tensor {name} is missing, which config.json asks for. The folder is incomplete or its config is "
    "another model's; download it again.": (
        "{folder}: config.json이 요구하는 텐서 {name}이(가) 없습니다. 폴더가 온전하지 않거나 config가 다른 모델의 "
        "것이니 다시 내려받으십시오."
    ),
    "{folder}: {count} tensors in blocks that config.json's architecture does not have (first {name}). Weights and "
    "config are of different models; download the folder again.": (
        "{folder}: config.json의 구조에 없는 텐서 {count}개가 블록에 있습니다(처음은 {name}). 가중치와 config가 서로 "
        "다른 모델의 것이니 폴더를 다시 내려받으십시오."
    ),
    "{folder}: the experts stored as {name} and so on do not make up {stack} {shape}, which config.json asks for. "
    "Weights and config are of different models; download the folder again.": (
        "{folder}: {name} 등으로 저장된 전문가들이 config.json이 요구하는 {stack} {shape}을(를) 이루지 못합니다. "
        "가중치와 config가 서로 다른 모델의 것이니 폴더를 다시 내려받으십시오."
    ),
    "{folder}: the tokenizer makes token {token}, the embedding has {rows} rows. The tokenizer belongs to another "
    "model.": (
        "{folder}: 토크나이저는 {token}번 토큰을 내는데 임베딩의 행은 {rows}개입니다. 다른 모델의 토크나이저입니다."
    ),
}
