"""What the command line says of files that runtimes read, in English and Korean."""

from __future__ import annotations

WRITTEN: dict[str, tuple[str, str]] = {
    "loads.gguf": (
        "llama.cpp, Ollama and LM Studio load its model.gguf. --folder would keep the Hugging Face folder too.",
        "llama.cpp, Ollama, LM Studio에서 model.gguf를 불러옵니다. --folder를 주면 허깅페이스 폴더도 남깁니다.",
    ),
    "export.types": ("Matrices: {types}; {size} of tensors.", "행렬: {types}; 텐서 {size}."),
    "export.adapter": (
        "Its adapter is beside it, in {file} ({size}): give llama.cpp --lora {file} too.",
        "어댑터는 함께 저장한 {file}입니다({size}). llama.cpp에 --lora {file}도 지정하십시오.",
    ),
    "export.checked": (
        "llama.cpp loads it: the same tokens for {tokens} texts, KL {kl} nats per token, the same text after {same} of "
        "{of} prompts.",
        "llama.cpp가 불러옵니다: 텍스트 {tokens}개의 토큰이 같고, 토큰당 KL {kl} nat, 프롬프트 {of}개 중 {same}개의 "
        "텍스트가 같습니다.",
    ),
    "export.laid_out": (
        "Every weight read back from it is that of the folder, bit for bit. No loader of this layout was run here.",
        "다시 읽은 가중치가 모두 폴더와 비트 단위로 같습니다. 이 형태를 읽는 프로그램은 여기서 실행하지 않았습니다.",
    ),
    "export.unchecked": (
        "Its weights are proved equal, but it was not run in llama.cpp: {why}.",
        "가중치가 같은 것은 검증했지만 llama.cpp에서 실행하지는 못했습니다: {why}.",
    ),
    "graph.checked": (
        "{runtime} loads it: KL {kl} nats per token on {tokens} tokens with float inputs, the same text after "
        "{same} of "
        "{of} prompts.",
        "{runtime}에서 불러왔습니다: 입력이 실수일 때 토큰 {tokens}개에서 토큰당 KL {kl} nat, 프롬프트 {of}개 중 "
        "{same}개의 텍스트가 같습니다.",
    ),
    "graph.states": (
        "{runtime} loads it: hidden states differ by {error} of their size on {tokens} tokens with float inputs.",
        "{runtime}에서 불러왔습니다: 입력이 실수일 때 토큰 {tokens}개에서 은닉 상태의 차이가 크기의 {error}입니다.",
    ),
    "graph.shipped": (
        "As it runs unless told otherwise (inputs in 8 bits; OpenVINO's cache too): {figure}. --inputs float is "
        "exact and slower.",
        "기본 설정으로 실행하면(입력 8비트, OpenVINO는 캐시도) {figure}입니다. --inputs float는 정확하지만 느립니다.",
    ),
    "graph.unchecked": ("It was not run for {target}: {why}.", "{target}에서 실행하지는 못했습니다: {why}."),
    "loads.onnx": (
        "onnxruntime and onnxruntime-genai load it. --folder would keep the Hugging Face folder too.",
        "onnxruntime과 onnxruntime-genai에서 불러옵니다. --folder를 주면 허깅페이스 폴더도 남깁니다.",
    ),
    "loads.openvino": (
        "OpenVINO loads it. --folder would keep the Hugging Face folder too.",
        "OpenVINO에서 불러옵니다. --folder를 주면 허깅페이스 폴더도 남깁니다.",
    ),
    "export.run": ("Run it: {command}", "실행하려면: {command}"),
}
