"""Errors of schemes, budgets, plans, recipes and runtimes in Korean."""

from __future__ import annotations

SCHEMES: dict[str, str] = {
    # schemes and grids
    "Scheme {scheme} is not known.{near} A scheme is int<bits><kind>-g<group> with 2 to 8 bits, kind nothing "
    "(integer zero), s (symmetric) or z (real zero), and any group (without -g: one scale per row), for example "
    "int4-g32, int3z-g64, int4s-g128; or one of {presets}; {floats} (with -g<group> too: {grouped}); or, for "
    "llama.cpp, one of {blocks}.": (
        "방식 {scheme}을(를) 모릅니다.{near} 방식은 int<비트><종류>-g<그룹>으로 적습니다. 비트는 2에서 8, 종류는 "
        "없음(정수 영점), s(대칭), z(실수 영점), 그룹은 자유이며 -g가 없으면 행마다 스케일이 하나입니다. 예: int4-g32, "
        "int3z-g64, int4s-g128. 또는 {presets}; {floats} 가운데 하나({grouped}에는 -g<그룹>도 됩니다), llama.cpp용이면 "
        "{blocks} 가운데 하나입니다."
    ),
    "An integer grid of {bits} bits does not exist. Choose 2 to 8 bits.": (
        "{bits}비트 정수 격자는 없습니다. 2에서 8비트를 고르십시오."
    ),
    "Group size {group} is negative. Choose 0 (per channel) or a positive size.": (
        "그룹 크기 {group}은(는) 음수입니다. 0(채널마다) 또는 양수를 고르십시오."
    ),
    "{grid} cannot hold exact zeros (its zero is a real number), so a mask cannot be kept. Use an integer-zero or "
    "symmetric grid for sparse weights.": (
        "{grid}은(는) 영점이 실수여서 0을 정확히 담지 못하므로 마스크를 지킬 수 없습니다. 희소한 가중치에는 정수 "
        "영점이나 대칭 격자를 쓰십시오."
    ),
    "{grid}: rows that share a scale have several. This is a defect of whet; report it.": (
        "{grid}: 스케일을 나눠 쓰는 행들의 스케일이 여럿입니다. whet의 결함이니 알려 주십시오."
    ),
    "{grid}: parts of one tensor have several divisors. This is a defect of whet; report it.": (
        "{grid}: 한 텐서의 부분들에 나눗수가 여럿입니다. whet의 결함이니 알려 주십시오."
    ),
    # sizes and budgets
    "{size} is not a size. Write a number with a unit, such as 400MB or 1.5GiB, or a share: 25%.": (
        "{size}은(는) 크기가 아닙니다. 400MB나 1.5GiB처럼 단위를 붙인 수, 또는 25% 같은 비율을 쓰십시오."
    ),
    "{size} of the original is no budget. Give more than 0% and at most 100%.": (
        "원본의 {size}은(는) 예산이 되지 않습니다. 0%보다 크고 100% 이하인 값을 주십시오."
    ),
    "{size}: {unit} is not a unit of size.{near} Units: kB, MB, GB (thousands), KiB, MiB, GiB (1024), or % of the "
    "original.": (
        "{size}: {unit}은(는) 크기의 단위가 아닙니다.{near} 단위: kB, MB, GB(1000), KiB, MiB, GiB(1024), 또는 원본의 %."
    ),
    "{size} leaves no room for anything. Give a size such as 400MB, or a share such as 25%.": (
        "{size}에는 아무것도 들어가지 않습니다. 400MB 같은 크기나 25% 같은 비율을 주십시오."
    ),
    "{budget} cannot be met: everything at its smallest takes {smallest} bytes, {more} more. Give at least {least} "
    "bytes.": (
        "{budget}을(를) 지킬 수 없습니다. 모두 가장 작게 해도 {smallest}바이트로 {more}바이트 많습니다. {least}바이트 "
        "이상을 주십시오."
    ),
    "{budget} cannot be met: the best mix is predicted to lose {loss} nats a token, more than {most}. Ask for less, "
    "or let parts stay as they are.": (
        "{budget}을(를) 지킬 수 없습니다. 가장 나은 혼합의 예측 손실이 토큰당 {loss} nat으로 {most}보다 큽니다. 덜 "
        "요구하거나 일부를 그대로 두십시오."
    ),
    "{budget} cannot be met: everything at its smallest takes {least} bytes ({bits} bits a parameter), the budget "
    "has room for {room}. Give at least {again} bytes, or a target that holds smaller schemes (--for whet holds the "
    "most).": (
        "{budget}을(를) 지킬 수 없습니다. 모두 가장 작게 해도 {least}바이트(파라미터당 {bits}비트)인데 예산에는 "
        "{room}바이트의 자리가 있습니다. {again}바이트 이상을 주거나, 더 작은 방식을 담는 런타임을 주십시오(--for "
        "whet이 가장 많이 담습니다)."
    ),
    "A budget of {limit} bytes": "예산 {limit}바이트",
    "A loss of {loss}": "손실 {loss}",
    # plans
    '{source} is not a plan: a plan is a JSON object with "format": "whet.plan". Make one with whet plan.': (
        '{source}은(는) 계획이 아닙니다. 계획은 "format": "whet.plan"이 든 JSON 객체입니다. whet plan으로 만드십시오.'
    ),
    "{source} is not a plan: a plan is a JSON object. Make one with whet plan.": (
        "{source}은(는) 계획이 아닙니다. 계획은 JSON 객체입니다. whet plan으로 만드십시오."
    ),
    "{source} has version {version}; this whet reads version 1. Update whet.": (
        "{source}의 version은 {version}인데 이 whet은 1을 읽습니다. whet을 업데이트하십시오."
    ),
    "The plan was made for {name} with SHA-256 {bound}…, this model has {sha256}…: weights or config are others. "
    "Make a plan for this model, or set model.sha256 in the plan to null to use it anyway.": (
        "계획은 SHA-256이 {bound}…인 {name}의 것인데 이 모델은 {sha256}…입니다. 가중치나 config가 다릅니다. 이 모델의 "
        "계획을 만들거나, 그래도 쓰려면 계획의 model.sha256을 null로 고치십시오."
    ),
    "another model": "다른 모델",
    "{source} keeps every part as it is, so there is nothing to make lighter. Lower its budget.": (
        "{source}은(는) 모든 부분을 그대로 두어 가벼워질 것이 없습니다. 예산을 낮추십시오."
    ),
    "{path}: there is no such file.{near} Give a plan that whet plan wrote.": (
        "{path}: 그런 파일이 없습니다.{near} whet plan이 쓴 계획을 주십시오."
    ),
    "{path}: the key {key} is there twice. Remove one of the two.": (
        "{path}: 키 {key}이(가) 두 번 나옵니다. 하나를 지우십시오."
    ),
    "{path} is not valid JSON: {error}. Mend that place.": (
        "{path}은(는) 올바른 JSON이 아닙니다: {error}. 그 자리를 고치십시오."
    ),
    "{source}: {address} is tied to {embedding} in this model and takes its scheme. Remove {again} from schemes.": (
        "{source}: 이 모델에서 {address}은(는) {embedding}와(과) 묶여 그 방식을 따릅니다. schemes에서 {again}을(를) "
        "지우십시오."
    ),
    "{source}: this model has no {address}.{near} Name linears as the model's own tensors do, without .weight.": (
        "{source}: 이 모델에 {address}이(가) 없습니다.{near} 선형층은 모델의 텐서 이름에서 .weight를 뺀 것으로 "
        "부르십시오."
    ),
    "{source} has no scheme for {names}. Give each one, or keep to leave it as it is.": (
        "{source}에 {names}의 방식이 없습니다. 하나씩 주거나, 그대로 둘 것은 keep으로 적으십시오."
    ),
    "{source}, {address}: {error} Or keep, which leaves the part as it is.": (
        "{source}의 {address}: {error} 또는 그대로 두는 keep을 쓰십시오."
    ),
    "The plan is for {target}, {other} is asked for. Leave out --for, or make a plan for {again}: what one runtime "
    "holds another may not.": (
        "계획은 {target}용인데 {other}을(를) 요구했습니다. --for를 빼거나 {again}용 계획을 만드십시오. 한 런타임이 "
        "담는 것을 다른 런타임은 못 담을 수 있습니다."
    ),
    # recipes
    "{source}: there is no preset {name}.{near} Presets: {known}.": (
        "{source}: 프리셋 {name}이(가) 없습니다.{near} 프리셋: {known}."
    ),
    "{source} is not a recipe: it holds no keys. It begins with version: 1 and has steps.": (
        "{source}에 키가 없어 레시피가 아닙니다. 레시피는 version: 1로 시작하고 steps가 있습니다."
    ),
    "{recipe} is neither a file nor a preset.{near} Presets: {known}.": (
        "{recipe}은(는) 파일도 프리셋도 아닙니다.{near} 프리셋: {known}."
    ),
    "{source}: steps: steps[1].quantize would quantize what steps[0].quantize has quantized already, which loses "
    "twice. Leave one of the two.": (
        "{source}: steps[1].quantize가 steps[0].quantize에서 이미 양자화한 것을 또 양자화해 두 번 잃습니다. 하나만 "
        "남기십시오."
    ),
    "{source}, steps[0].quantize: {error}": "{source}의 steps[0].quantize: {error}",
    "{source}, steps[0].quantize.preset": "{source}의 steps[0].quantize.preset",
    "{path}, line {line}, column {column}: {what}. Mend that place.": (
        "{path}의 {line}번째 줄 {column}번째 칸: {what}. 그 자리를 고치십시오."
    ),
    "{path}: {what}. Mend that place.": "{path}: {what}. 그 자리를 고치십시오.",
    "the key {name} is there twice": "키 {name}이(가) 두 번 나옵니다",
    "{path} is not YAML in UTF-8 ({error}).": "{path}은(는) UTF-8로 쓴 YAML이 아닙니다({error}).",
    "the plan": "계획",
    "the recipe": "레시피",
    # what a runtime holds
    "Target {name} is not known.{near} Targets: {known}.": "{name}은(는) 모르는 런타임입니다.{near} 런타임: {known}.",
    "{source} is of the family {family}, and whet writes no file of it that {target} loads. Families it writes: "
    "{known}. For another runtime give --for transformers.": (
        "{source}은(는) {family} 계열인데 whet은 {target}이(가) 여는 그 계열의 파일을 쓰지 않습니다. 쓰는 계열: "
        "{known}. 다른 런타임용이면 --for transformers를 주십시오."
    ),
    "{part}: {target} fuses these linears into one and reads them with one scheme, but they have several ({said}). "
    "Give them the same.": (
        "{part}: {target}은(는) 이 선형층들을 하나로 합쳐 한 방식으로 읽는데 방식이 여럿입니다({said}). 같은 방식을 "
        "주십시오."
    ),
    "F16 and BF16 are for llama.cpp: {target} reads what is not quantized in the model's own type. Leave those "
    "parts as they are (keep), or use --for llama.cpp.": (
        "F16과 BF16은 llama.cpp용입니다. {target}은(는) 양자화하지 않은 것을 모델의 타입으로 읽습니다. 그 부분은 "
        "그대로 두거나(keep) --for llama.cpp를 쓰십시오."
    ),
    "{target} cannot hold this: {why}. Use --for transformers.": (
        "{target}은(는) 이것을 담지 못합니다: {why}. --for transformers를 쓰십시오."
    ),
    "{target} cannot hold this: {why}. Convert the original to bfloat16 first.": (
        "{target}은(는) 이것을 담지 못합니다: {why}. 먼저 원본을 bfloat16으로 바꾸십시오."
    ),
    "{target} cannot hold different schemes ({schemes}) when one has integer zeros. Use symmetric schemes "
    "(int4s-g128), or one scheme throughout.": (
        "{target}은(는) 정수 영점이 있으면 여러 방식({schemes})을 담지 못합니다. 대칭 방식(int4s-g128)이나 한 방식만 "
        "쓰십시오."
    ),
    "transformers makes up the weights of a T5 before it loads them, and packed linears have none": (
        "transformers는 T5의 가중치를 열기 전에 지어 넣는데, 묶어 담은 선형층에는 가중치가 없습니다"
    ),
    "transformers stacks some of its weights, and cannot while others are packed": (
        "transformers가 가중치 일부를 쌓는데, 다른 것이 묶여 담겨 있으면 하지 못합니다"
    ),
    "a quantized embedding loads in stock transformers only where the head is a table too": (
        "양자화된 임베딩은 출력층도 표일 때만 transformers에서 그대로 열립니다"
    ),
    "{family} stores its linears transposed, and compressed-tensors groups along their outputs": (
        "{family}은(는) 선형층을 뒤집어 저장하고, compressed-tensors는 출력을 따라 그룹을 짓습니다"
    ),
    "compressed-tensors has one scheme for linears that are stored as one tensor, and these have several": (
        "compressed-tensors는 한 텐서로 저장된 선형층들에 방식이 하나인데, 이들은 여럿입니다"
    ),
    "transformers reads stacked experts of FP8 and FP4 in another type, or not at all": (
        "transformers는 쌓인 전문가의 FP8과 FP4를 다른 타입으로 읽거나 읽지 못합니다"
    ),
    "transformers leaves experts in the type of the stored scales, which is not the model's float32": (
        "transformers는 전문가를 저장된 스케일의 타입으로 두는데, 모델의 float32와 다릅니다"
    ),
    "transformers reads experts right only if all of them, and all else, have one symmetric scheme": (
        "transformers는 전문가와 나머지가 모두 한 대칭 방식일 때만 전문가를 바르게 읽습니다"
    ),
    "stock transformers computes NVFP4 and MXFP4 in bfloat16, which beside others fails in {type} models": (
        "transformers는 NVFP4와 MXFP4를 bfloat16으로 계산하는데, {type} 모델에서 다른 것과 섞이면 실패합니다"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} holds {names} and nothing else. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) {names}만 담습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} holds {names}. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) {names}을(를) 담습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} holds {names}, integers. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) {names}와(과) 정수를 담습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} holds integers. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 정수만 담습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} reads no block types of ggml. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) ggml의 블록 타입을 읽지 않습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} has no {bits}-bit kernel. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}에 {bits}비트 커널이 없습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} holds no real zeros. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 실수 영점을 담지 못합니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} loads no quantized embedding or head. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 양자화된 임베딩이나 출력층을 열지 못합니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} takes no group of {group}. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 그룹 {group}을(를) 받지 않습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} needs rows that divide by {group}, and {width} does not. "
    "{remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}에는 {group}(으)로 나누어지는 행이 필요한데 {width}은(는) "
        "나누어지지 않습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} needs groups that divide the row, and {group} does not "
    "divide {width}. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}에는 행을 나누는 그룹이 필요한데 {group}은(는) {width}을(를) "
        "나누지 못합니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} is given tables some thousand rows at a time. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 표를 몇천 행씩 나누어 받습니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} fuses linears, and blocks of {size} rows do not divide "
    "{whole}. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 선형층들을 합치는데 {size}행 블록은 {whole}을(를) "
        "나누지 못합니다. {remedy}"
    ),
    "{address} ({rows} x {columns}) as {grid}: {target} holds two weights in a byte, and the rows are odd. {remedy}": (
        "{address} ({rows} x {columns})의 {grid}: {target}은(는) 가중치 둘을 한 바이트에 담는데 행의 길이가 "
        "홀수입니다. {remedy}"
    ),
    "Use {scheme}, which is the same.": "같은 것인 {scheme}을(를) 쓰십시오.",
    "Use one of them, or --for whet.": "그 가운데 하나나 --for whet을 쓰십시오.",
    "Use int4s-g128 or the like, or --for llama.cpp.": "int4s-g128 같은 것이나 --for llama.cpp를 쓰십시오.",
    "Use {bits} bits, or --for whet.": "{bits}비트나 --for whet을 쓰십시오.",
    "Use 4 or 8 bits, or --for whet.": "4비트나 8비트, 또는 --for whet을 쓰십시오.",
    "Use 2 or 4 or 8 bits, or --for whet.": "2비트, 4비트, 8비트 또는 --for whet을 쓰십시오.",
    "Use an integer zero (int4-g128) or a symmetric grid (int4s-g128).": (
        "정수 영점(int4-g128)이나 대칭 격자(int4s-g128)를 쓰십시오."
    ),
    "Leave out --embed (in a plan: keep).": "--embed를 빼십시오(계획에서는 keep).",
    "Use a group of {groups}, or none (per channel).": "그룹을 {groups}(으)로 하거나 두지 마십시오(채널마다).",
    "Give this part {scheme} (a plan names a scheme for each part; whet plan makes one).": (
        "이 부분에는 {scheme}을(를) 주십시오(계획은 부분마다 방식을 적으며 whet plan이 만듭니다)."
    ),
    "Use FP8, which has one scale per row.": "행마다 스케일이 하나인 FP8을 쓰십시오.",
    "Use FP8 or nf4.": "FP8이나 nf4를 쓰십시오.",
    "Use FP8, which has one scale per row, or --for whet, which keeps a shorter last group.": (
        "행마다 스케일이 하나인 FP8이나, 짧은 마지막 그룹을 두는 --for whet을 쓰십시오."
    ),
    "Use one scale per row (leave out -g), or --for whet, which keeps a shorter last group.": (
        "행마다 스케일 하나(-g를 빼십시오)나, 짧은 마지막 그룹을 두는 --for whet을 쓰십시오."
    ),
    "Use a group that divides every row, such as {group}, or --for whet, which keeps a shorter last group.": (
        "{group}처럼 모든 행을 나누는 그룹이나, 짧은 마지막 그룹을 두는 --for whet을 쓰십시오."
    ),
}
