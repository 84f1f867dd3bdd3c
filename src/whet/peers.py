"""What other tools call things, and what to type here for it. (Importing it is light.)"""

from __future__ import annotations

import re

from whet.errors import UsageError

# Of each option: what is said elsewhere, as a pattern of the whole in lower case, and the options that do it.
_WORDS: dict[str, dict[str, str]] = {
    "scheme": {
        r"awq|autoawq": "--scheme W4A16 --transform awq",
        r"gptq|autogptq|gptqmodel": "--scheme W4A16 --solver gptq",
        r"smoothquant|smooth": "--scheme W8A8 --transform smooth",
        r"int8[-_]?w8a8|w8a8[-_](?:int8|dynamic|dynamic[-_]per[-_]token|int)": "--scheme W8A8",
        r"w8a8[-_](?:fp8|float8)(?:[-_]dynamic)?|fp8[-_](?:dynamic|per[-_]token)|w8a8fp8": "--scheme FP8A8",
        r"w8a8[-_]fp8[-_]static|fp8[-_](?:static|per[-_]tensor)": "--scheme FP8A8-static",
        r"w4a8[-_](?:int8|dynamic|int)": "--scheme W4A8",
        r"w4afp8|w4a8[-_]fp8": "--scheme int4s-g128+fp8",
        r"nvfp4[-_]?w4a4|w4a4[-_](?:nvfp4|fp4)": "--scheme W4A4",
        r"mxfp4[-_]?w4a4|w4a4[-_]mxfp4": "--scheme MXFP4+mxfp4",
        r"w([2-8])a4(?:[-_].*)?": r"--scheme int\1s-g128+int4",
        r"w([2-8])a8(?:[-_].*)?": r"--scheme int\1s-g128+int8",
        r"rtn|nearest": "--scheme W4A16 --solver nearest",
        r"hqq": "--scheme int4z-g64 --solver nearest",
        r"gguf|ggml|llama\.?cpp": "--for llama.cpp --scheme Q4_K_M",
        r"bnb|bitsandbytes|bnb[-_]?4bit|bnb[-_]nf4|4bit[-_]nf4|qlora": "--scheme nf4",
        r"bnb[-_]?8bit|llm\.int8": "--scheme W8A16",
        r"balanced|smallest": r"--recipe \g<0>",
        r"(?:[wqiu]|int|uint)?8(?:[-_ ]?bits?)?": "--scheme W8A16, or Q8_0 with --for llama.cpp",
        r"(?:[wqiu]|int|uint)?2(?:[-_ ]?bits?)?": "--scheme W2A16, or Q2_K with --for llama.cpp",
        r"(?:[wqiu]|int|uint)?([34])(?:[-_ ]?bits?)?": r"--scheme W\1A16, or Q\1_K_M with --for llama.cpp",
        r"(?:[wqiu]|int|uint)?([56])(?:[-_ ]?bits?)?": r"--scheme int\1-g32, or Q\1_K with --for llama.cpp",
        r"w([2-8])a16[-_]asym|int([2-8])[-_]asym": r"--scheme int\1\2-g128",
        r"w([2-8])a16[-_](?:sym|g128)|int([2-8])[-_]sym": r"--scheme int\1\2s-g128",
        r"w([2-8])a16[-_]?g(\d+)": r"--scheme int\1s-g\2",
        r"(?:fp8|f8|e4m3|float8)(?:[-_]e4m3(?:fn)?)?": "--scheme FP8",
        r"(?:fp8[-_])?e5m2": "--scheme fp8e5m2",
        r"mxfp|mx4|fp4[-_]?mx": "--scheme MXFP4",
        r"nvfp|nvfp4a16|nf?v4": "--scheme NVFP4",
        r"f(?:p|loat)16|half": "--scheme F16",
        r"bfloat16": "--scheme BF16",
        r"2:4|4:8": r"--sparsity \g<0>",
    },
    "solver": {
        r"auto[-_]?awq": "--transform awq",
        r"smooth[-_]?quant": "--transform smooth",
        r"awq|smooth|rotate|quarot|spinquant|auto": r"--transform \g<0>",
        r"rtn|round(?:ing)?|round[-_]to[-_]nearest|none|minmax|hqq": "--solver nearest",
        r"autogptq|gptqmodel|optq|obq|obs": "--solver gptq",
        r"gptq[-_]?v2": "--solver gptaq",
        r"auto[-_]?round|brecq|adaround|omniquant|signround": "--solver block",
        r"qat|aqlm|quip#?|pv[-_]?tuning": "--solver tuned",
        r"sparsegpt|wanda|magnitude": r"--sparsity 50% --importance \g<0>",
    },
    "transform": {
        r"smooth[-_]?quant": "--transform smooth",
        r"auto[-_]?awq": "--transform awq",
        r"hadamard|quip#?": "--transform quarot",
        r"gptq|gptaq|nearest|block|tuned|fast|good|best": r"--solver \g<0>",
        r"rtn": "--solver nearest",
        r"sparsegpt|wanda|magnitude": r"--sparsity 50% --importance \g<0>",
    },
    "target": {
        r"gguf|ggml|llama[-_]?cpp|llama|ollama|lm[-_]?studio|kobold(?:cpp)?|llamafile|jan": "--for llama.cpp",
        r"hf|hugging[-_]?face|torch|pytorch|tgi": "--for transformers",
        r"sglang|compressed[-_]tensors": "--for vllm",
        r"ort|onnx[-_]?runtime": "--for onnx",
        r"ov|optimum[-_]intel": "--for openvino",
    },
}


def refuse_peers_word(option: str, name: str) -> None:
    """Raises UsageError that names what to type, where `name` is another tool's word for something whet has.

    option: `scheme`, `solver`, `transform` or `target`. For names that whet does not know.
    """
    said = name.strip().lower()
    for pattern, typed in _WORDS[option].items():
        if match := re.fullmatch(pattern, said):
            raise UsageError(
                "whet has no {option} {name!r}. For what others mean by that give {typed}.",
                option=option,
                name=name,
                typed=match.expand(typed),
            )
