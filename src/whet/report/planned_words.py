"""What the page says of scores, of a plan, and of what was predicted and measured: English, Korean."""

from __future__ import annotations

PLANNED: dict[str, tuple[str, str]] = {
    # scores
    "scores": ("Which block carries what", "블록별 역할"),
    "scores.lede": (
        "Each column is a skill or a language, and sums to 100: how much of its sensitivity sits in each block. "
        "Sensitivity is the KL predicted for an error of 1 % in the outputs.",
        "열 하나가 능력이나 언어 하나이고 합이 100입니다. 그 민감도가 블록마다 얼마나 몰려 있는지 보여 줍니다. "
        "민감도는 출력에 1 % 오차가 있을 때의 예측 KL입니다.",
    ),
    "scores.map": ("Share of the sensitivity in each block, per cent", "블록별 민감도 비중 (%)"),
    "scores.raw": ("Sensitivity, nats a token", "민감도 (토큰당 nat)"),
    "scores.tokens": ("Scored on {tokens} tokens.", "토큰 {tokens}개로 매겼습니다."),
    "scores.from": ("Scored on {tokens} tokens in {time}.", "토큰 {tokens}개로 {time} 동안 매겼습니다."),
    "all": ("all text", "텍스트 전체"),
    "block": ("Block", "블록"),
    "influence": ("Influence (1 − cos)", "영향 (1 − cos)"),
    "language.en": ("English", "영어"),
    "language.ko": ("Korean", "한국어"),
    "outliers": ("Activation outliers", "활성값 이상치"),
    "part.address": ("Module", "모듈"),
    "channel": ("Channel", "채널"),
    "token": ("Token", "토큰"),
    "times.typical": ("Times the typical", "평소 대비 배수"),
    "finding.spike": (
        "{address} spikes to {ratio} the usual on {text} (channel {channel}): keep activations there above 8 bits.",
        "{address}의 입력이 {text}에서 평소의 {ratio}까지 커집니다(채널 {channel}). 이곳의 "
        "활성값은 8비트로 줄이지 마십시오.",
    ),
    "finding.embedding": (
        "Embedding and head hold {share} of the bytes: 8 bits there save {saved} for a predicted KL of {kl}.",
        "임베딩과 출력층이 전체 크기의 {share}입니다. 8비트로 하면 {saved}가 줄고 예측 KL은 {kl}입니다.",
    ),
    "finding.idle": (
        "Blocks that change little and may be removed: {blocks}.",
        "출력을 거의 바꾸지 않아 제거해 볼 만한 블록: {blocks}.",
    ),
    "finding.flat": (
        "{count} linear(s) with few directions in the output, such as {address}: factorizing may pay.",
        "선형층 {count}개는 출력의 랭크가 낮습니다(예: {address}). 저랭크 분해를 해 볼 만합니다.",
    ),
    "finding.one_skill": (
        "Block {block} carries {share} of {skill} and {usual} of the middle skill: protect it where {skill} matters.",
        "블록 {block}: {skill} 민감도의 {share}가 여기에 있습니다(다른 능력의 중앙값 {usual}). 그 "
        "능력이 중요하면 비트를 높이십시오.",
    ),
    "finding.speed": (
        "Weights-only schemes save disk and memory. They are faster where the runtime has kernels for them (vLLM); "
        "stock transformers computes the weights when it loads them and runs as before.",
        "가중치만 양자화하면 디스크와 메모리가 줄어듭니다. 속도는 커널이 있는 런타임(vLLM)에서 빨라지고, "
        "표준 transformers에서는 불러올 때 가중치를 풀어 계산하므로 그대로입니다.",
    ),
    # schemes
    "schemes": ("The scheme of each part", "부분별 형식"),
    "schemes.map": ("Scheme by block and role", "블록과 역할별 형식"),
    "schemes.outside": ("Outside the blocks", "블록 바깥"),
    "schemes.lede": (
        "Darker is more bits. {count} part(s), {kinds} scheme(s).",
        "색이 짙을수록 비트가 많습니다. 부분 {count}개, 형식 {kinds}가지입니다.",
    ),
    "keep": ("kept", "그대로"),
    "named": ("What the names mean", "형식 이름의 뜻"),
    "named.plain": ("not quantized: {name}", "양자화하지 않은 {name}"),
    "named.integer": ("{bits}-bit integers", "{bits}비트 정수"),
    "named.zero.none": ("symmetric around zero", "0을 중심으로 대칭"),
    "named.zero.int": ("with an integer as zero point", "정수 영점"),
    "named.zero.real": ("with a real number as zero point", "실수 영점"),
    "named.e4m3": ("8-bit floats (E4M3)", "8비트 부동소수점(E4M3)"),
    "named.e5m2": ("8-bit floats (E5M2)", "8비트 부동소수점(E5M2)"),
    "named.e2m1": ("4-bit floats (E2M1)", "4비트 부동소수점(E2M1)"),
    "named.nvfp4": (
        "4-bit floats (E2M1), one FP8 scale per 16 weights of a row",
        "4비트 부동소수점(E2M1), 행에서 가중치 16개마다 FP8 스케일 하나",
    ),
    "named.mxfp4": (
        "4-bit floats (E2M1), a power of two as scale per 32 weights of a row",
        "4비트 부동소수점(E2M1), 행에서 가중치 32개마다 2의 거듭제곱인 스케일 하나",
    ),
    "named.nf4": ("4-bit NormalFloat: 16 values spaced as in QLoRA", "4비트 NormalFloat: QLoRA의 값 16개"),
    "named.ternary": ("−1, 0 and 1", "−1, 0, 1"),
    "named.table": ("{bits}-bit codes for 16 values of a table", "표에 있는 값 16개를 가리키는 {bits}비트 코드"),
    "named.scale.matrix": ("one scale for the matrix", "행렬 전체에 스케일 하나"),
    "named.scale.square": ("one scale per block of {rows} × {columns}", "{rows} × {columns} 블록마다 스케일 하나"),
    "named.scale.row": ("one scale per row", "행마다 스케일 하나"),
    "named.scale.group": ("one scale per {group} weights of a row", "행에서 가중치 {group}개마다 스케일 하나"),
    "named.block": ("a type of llama.cpp", "llama.cpp의 타입"),
    "scheme": ("Scheme", "형식"),
    "bits": ("{bits} bits", "{bits}비트"),
    "role.embedding": ("Embedding", "임베딩"),
    "role.head": ("Head", "출력층"),
    "heavy": ("Where the predicted loss sits", "예측 손실이 몰린 곳"),
    "heavy.kl": ("Predicted KL", "예측 KL"),
    "heavy.alone": ("Measured alone", "따로 측정한 KL"),
    "heavy.share": ("Share", "비중"),
    "plan.asked": ("Budget: {asked}, for {target}.", "예산: {asked}, {target}용."),
    "plan.none": ("none", "없음"),
    "plan.made": ("Scored by {scorer}, quantized with {solver}.", "점수는 {scorer}, 양자화는 {solver}."),
    "plan.gap": (
        "By predicted loss, no mix that {where} loads can be more than {relative} better than this one.",
        "예측 손실로 보면, {where}에서 불러올 수 있는 조합 중 이보다 {relative} 넘게 나은 것은 없습니다.",
    ),
    "plan.exact": (
        "Of all mixes that {where} loads, this one has the lowest predicted loss within the budget.",
        "{where}에서 불러올 수 있는 조합 중 예산 안에서 예측 손실이 가장 낮습니다.",
    ),
    "plan.gap.bytes": (
        "No mix that {where} loads and that is predicted to keep this quality can be more than {relative} smaller.",
        "{where}에서 불러올 수 있고 이 품질을 지킨다고 예측되는 조합 중 이보다 {relative} 넘게 작은 것은 없습니다.",
    ),
    "plan.exact.bytes": (
        "Of all mixes that {where} loads and that are predicted to keep this quality, this one is the smallest.",
        "{where}에서 불러올 수 있고 이 품질을 지킨다고 예측되는 조합 중 가장 작습니다.",
    ),
    "plan.stock": ("stock transformers", "표준 transformers"),
    "plan.free": (
        "A free mix is predicted to lose {kl} nats per token at {bits} bits: --for whet makes one, which "
        "loads through the folder's own modelling file.",
        "자유로운 조합은 {bits}비트에서 토큰당 {kl} nat을 잃는다고 예측됩니다. --for whet으로 만들며, 폴더에 든 "
        "모델링 파일로 불러옵니다.",
    ),
    "plan.left": ("What {target} does not hold", "{target}에 담을 수 없는 것"),
    # rate and distortion
    "rate": ("Bits against divergence", "비트와 발산"),
    "rate.lede": (
        "Further left is smaller, further down is closer to the original. The vertical axis is logarithmic. Points are "
        "predictions unless marked as measured.",
        "왼쪽일수록 작고 아래일수록 원본에 가깝습니다. 세로 눈금은 로그입니다. 측정이라고 "
        "표시한 점 외에는 예측값입니다.",
    ),
    "rate.plot": ("KL against bits a weight", "가중치당 비트와 KL"),
    "rate.desc": (
        "{frontier} mix(es) found by whet from {low} to {high} bits, {uniform} uniform scheme(s), {measured} measured "
        "point(s). The table below has every number.",
        "whet이 찾은 조합 {frontier}개({low}~{high}비트), 한 가지 형식 {uniform}개, 측정한 점 {measured}개입니다. "
        "모든 수치는 아래 표에 있습니다.",
    ),
    "rate.frontier": ("whet's best mix (predicted)", "whet의 가장 좋은 조합 (예측)"),
    "rate.uniform": ("one scheme throughout (predicted)", "한 가지 형식 (예측)"),
    "rate.measured": ("measured", "측정"),
    "rate.planned": ("this plan (predicted)", "이 계획 (예측)"),
    "rate.planned.label": ("plan", "계획"),
    "rate.bound": ("slope of the Gaussian bound", "가우스 한계의 기울기"),
    "rate.x": ("bits a weight, everything counted", "가중치당 비트, 모든 텐서 포함"),
    "rate.y": ("KL, nats a token (log)", "토큰당 KL, nat (로그)"),
    "rate.anchor": (
        "The dashed line has the slope of the Gaussian rate–distortion bound D(R) = σ²·2^(−2R): each bit less makes "
        "the KL four times as large. Theory gives the slope, not the height, so the line is drawn through one of the "
        "predicted points ({name} at {bits} bits), such that none lies below it. It shows where saving bits costs "
        "more than in theory, not how far from the optimum whet is.",
        "점선의 기울기는 가우스 율–왜곡 한계 D(R) = σ²·2^(−2R)의 기울기입니다. 1비트 줄 때마다 KL이 네 배가 됩니다. "
        "이론은 기울기만 정하고 높이는 정하지 않으므로, 선 아래에 놓이는 예측점이 없도록 {bits}비트의 "
        "점({name})을 지나게 그었습니다. 이 선은 비트를 줄일 때의 손실이 이론보다 커지는 곳을 보여 줄 뿐, whet의 "
        "조합이 최적에서 얼마나 떨어져 있는지를 보여 주지는 않습니다.",
    ),
    "rate.frontier.name": ("whet's mix", "whet의 조합"),
    "rate.uniform.name": ("{scheme}, embedding {embed}", "{scheme}, 임베딩 {embed}"),
    "rate.best": (
        "Of {count} uniform choice(s), the best of each quarter of a bit are shown.",
        "한 가지 형식 {count}개 중 0.25비트마다 가장 좋은 것만 보여 줍니다.",
    ),
    "rate.dropped": (
        "Points with a predicted KL under {least} are in the table only.",
        "예측 KL이 {least}보다 낮은 점은 표에만 있습니다.",
    ),
    "rate.table": ("Every point of the plot", "그래프의 모든 점"),
    "point": ("Point", "점"),
    "rate.measured.verify": ("measured, verification text, round {round}", "측정, 검증용 텍스트, {round}회차"),
    "rate.measured.report": ("measured, the comparison above", "측정, 위의 비교"),
    "bits.head": ("Bits", "비트"),
    "bytes": ("Bytes", "바이트"),
    # predicted and measured
    "rounds": ("Predicted against measured", "예측과 측정"),
    "rounds.lede": (
        "The plan assumes that losses of parts add up. Each round measures the planned mix on the verification text, "
        "and the next plan is corrected by what its parts lost. A trial is made on a part of the text.",
        "계획은 부분별 손실을 더하면 전체 손실이 된다고 가정합니다. 회차마다 계획한 조합을 검증용 텍스트로 측정하고, "
        "부분별 손실에 맞추어 다음 계획을 고칩니다. 시험은 텍스트의 일부로 합니다.",
    ),
    "rounds.plot": ("KL of each round, nats a token (log)", "회차별 KL (토큰당 nat, 로그)"),
    "rounds.desc": (
        "One row a round on a logarithmic axis: a ring for predicted, a diamond for measured. {list}.",
        "한 줄이 한 회차이고 축은 로그입니다. 고리가 예측, 마름모가 측정입니다. {list}.",
    ),
    "rounds.table": ("Rounds", "회차"),
    "round": ("Round {number}", "{number}회차"),
    "round.trial": ("Round {number}, a trial", "{number}회차 (시험)"),
    "round.head": ("Round", "회차"),
    "round.report": ("Comparison", "비교"),
    "predicted": ("Predicted KL", "예측 KL"),
    "predicted.word": ("predicted", "예측"),
    "measured.word": ("measured", "측정"),
    "measured.kl": ("Measured KL", "측정 KL"),
    "measured.over": ("Measured / predicted", "측정 / 예측"),
    "weakest": ("Weakest skill", "가장 약해진 능력"),
    "round.note": (
        "The comparison is on other text than the rounds, so its KL may differ for that reason too.",
        "비교에는 회차와 다른 텍스트를 썼으므로 KL이 그 때문에 다를 수도 있습니다.",
    ),
}
