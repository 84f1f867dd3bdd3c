"""Errors of a run in Korean: what was asked for, the folder, the machine, and what did not hold."""

from __future__ import annotations

RUNS: dict[str, str] = {
    # what was asked for
    "{first} and {second} were given, and each alone says what to do. Give one: scheme (with embed) for one grid "
    "throughout, plan for what a file says, or a budget: fit, bits or quality.": (
        "{first}와(과) {second}을(를) 함께 주었는데 저마다 무엇을 할지 정합니다. 하나만 주십시오: 전체에 한 격자면 "
        "scheme(과 embed), 파일대로면 plan, 예산이면 fit, bits, quality 가운데 하나."
    ),
    "{first} and {second} and {third} were given, and each alone says what to do. Give one: scheme (with embed) for "
    "one grid throughout, plan for what a file says, or a budget: fit, bits or quality.": (
        "{first}, {second}, {third}을(를) 함께 주었는데 저마다 무엇을 할지 정합니다. 하나만 주십시오: 전체에 한 격자면 "
        "scheme(과 embed), 파일대로면 plan, 예산이면 fit, bits, quality 가운데 하나."
    ),
    "{ways} were given, and each alone says what to do. Give one: scheme (with embed) for one grid throughout, plan "
    "for what a file says, or a budget: fit, bits or quality.": (
        "{ways}을(를) 함께 주었는데 저마다 무엇을 할지 정합니다. 하나만 주십시오: 전체에 한 격자면 scheme(과 embed), "
        "파일대로면 plan, 예산이면 fit, bits, quality 가운데 하나."
    ),
    "embed goes with scheme: {way} decides on embedding and head itself. Leave embed out.": (
        "embed는 scheme과 씁니다. {way}은(는) 임베딩과 출력층도 스스로 정하니 embed를 빼십시오."
    ),
    "skills tell what a budget is to keep: give fit, bits or quality with them, or leave them out.": (
        "skills는 예산이 지킬 능력을 말합니다. fit, bits, quality 가운데 하나와 함께 주거나 빼십시오."
    ),
    "repair {rank} is no rank: give a whole number from 1 on, such as 16, or leave it out.": (
        "repair {rank}은(는) 랭크가 아닙니다. 16처럼 1 이상의 정수를 주거나 빼십시오."
    ),
    "repair goes with scheme and plan: what {way} plans does not know what a repair of rank {rank} wins back. Leave "
    "repair out, or make a plan for fewer bytes first (whet plan) and give it with --plan.": (
        "repair는 scheme이나 plan과 씁니다. {way}(으)로 세우는 계획은 랭크 {rank}의 복구가 얼마를 되찾는지 모릅니다. "
        "repair를 빼거나, 먼저 바이트가 더 적은 계획을 만들어(whet plan) --plan으로 주십시오."
    ),
    "bits {bits} is no budget: give the stored bits a parameter, such as 3.5.": (
        "bits {bits}은(는) 예산이 되지 않습니다. 3.5처럼 파라미터당 저장 비트를 주십시오."
    ),
    "quality {quality} is no share of the original's: give one between 0 and 1, such as 0.98.": (
        "quality {quality}은(는) 원본 품질의 비율이 아닙니다. 0.98처럼 0과 1 사이의 값을 주십시오."
    ),
    "Solver {solver} is not known.{near} Solvers: {known}; or say {efforts}.": (
        "{solver}은(는) 모르는 solver입니다.{near} 있는 것: {known}; 또는 {efforts}."
    ),
    "fast for {fast}, good for {good}, best for {best}": "fast는 {fast}, good은 {good}, best는 {best}",
    "Transform {transform} is not known.{near} Transforms: {known}.": (
        "{transform}은(는) 모르는 변환입니다.{near} 변환: {known}."
    ),
    "{samples} windows of {window} tokens is too little: give at least 1 window of 8 tokens.": (
        "{window}토큰짜리 창 {samples}개는 모자랍니다. 8토큰짜리 창 1개 이상을 주십시오."
    ),
    "whet has no table of the family {family}, so it does not know where --transform {transform} folds in. Leave it "
    "out.": "whet에 {family} 계열의 표가 없어 --transform {transform}이(가) 어디로 접히는지 모릅니다. 빼십시오.",
    "whet has no table of the family {family}, so it does not know who reads its embedding. Leave out --embed.": (
        "whet에 {family} 계열의 표가 없어 임베딩을 무엇이 읽는지 모릅니다. --embed를 빼십시오."
    ),
    "No text was given, and {model} does not write any by itself. Give --text FILE of the kind the model is used "
    "for, or --solver nearest, which needs none.": (
        "글이 없고 {model}은(는) 스스로 쓰지 않는 모델입니다. 모델을 쓸 곳과 같은 종류의 글을 --text FILE로 주거나, "
        "글이 필요 없는 --solver nearest를 주십시오."
    ),
    "No text was given, and {model} does not write any by itself. Give --text FILE of the kind the model is used "
    "for, or --solver nearest without --transform {transform}, which needs none.": (
        "글이 없고 {model}은(는) 스스로 쓰지 않는 모델입니다. 모델을 쓸 곳과 같은 종류의 글을 --text FILE로 주거나, "
        "--transform {transform} 없이 글이 필요 없는 --solver nearest를 주십시오."
    ),
    "--transform auto keeps what helps on text that solves nothing, and none is left for that: give more text, or "
    "--eval FILE.": (
        "--transform auto는 푸는 데 쓰지 않는 글에서 도움이 되는 것을 남기는데 그럴 글이 남지 않았습니다. 글을 더 "
        "주거나 --eval FILE을 주십시오."
    ),
    "synthetic {tokens} is no number of tokens. Give 0 for none, or how many, such as {enough}.": (
        "synthetic {tokens}은(는) 토큰 수가 아닙니다. 없으면 0, 있으면 {enough}처럼 몇 개인지 주십시오."
    ),
    "synthetic {tokens} asks for text beside yours, and none is solved on. Give --text FILE too, or leave synthetic "
    "out: without any text the model writes all of it, where the solver needs some.": (
        "synthetic {tokens}은(는) 주어진 글에 더할 글을 요구하는데 푸는 데 쓸 글이 없습니다. --text FILE도 주거나 "
        "synthetic을 빼십시오. 글이 아예 없으면 solver에 필요한 만큼 모델이 모두 씁니다."
    ),
    "synthetic {tokens} asks for text that the original writes, but {model} does not write any. Leave it out and "
    "give more text (--text, --samples).": (
        "synthetic {tokens}은(는) 원본이 쓰는 글을 요구하는데 {model}은(는) 글을 쓰지 않습니다. 빼고 글을 더 "
        "주십시오(--text, --samples)."
    ),
    "synthetic {tokens} asks for text that the original writes, but {model} needs about {needs} GB of memory for "
    "that and {free} GB are free. Leave it out and give more text (--text, --samples).": (
        "synthetic {tokens}은(는) 원본이 쓰는 글을 요구하는데 {model}에 그러려면 메모리가 약 {needs} GB 필요하고 "
        "{free} GB가 비어 있습니다. 빼고 글을 더 주십시오(--text, --samples)."
    ),
    "does not write any": "글을 쓰지 않습니다",
    "needs about {needs} GB of memory for that and {free} GB are free": (
        "그러려면 메모리가 약 {needs} GB 필요한데 {free} GB가 비어 있습니다"
    ),
    "No text was given. {model} could write its own, but {why}. Give --text FILE (txt, jsonl, parquet or hub data) "
    "in the languages the model is used in, or --solver nearest, which needs none.": (
        "글이 없습니다. {model}이(가) 스스로 쓸 수 있지만 {why}. 모델을 쓸 언어의 글을 --text FILE(txt, jsonl, "
        "parquet, 허브 데이터)로 주거나, 글이 필요 없는 --solver nearest를 주십시오."
    ),
    "{model} ends every text it begins within {tokens} tokens, so it cannot write its own calibration text. Give "
    "--text FILE.": (
        "{model}은(는) 글을 쓰기 시작하면 늘 {tokens}토큰 안에 끝내 보정할 글을 스스로 쓰지 못합니다. --text FILE을 "
        "주십시오."
    ),
    "repair makes an adapter, and with {target} whet has run none. Leave repair out, or give a runtime that takes "
    "it: {known}.": (
        "repair는 어댑터를 만드는데 whet이 {target}에서는 어댑터를 돌려 본 적이 없습니다. repair를 빼거나 어댑터를 "
        "받는 런타임을 주십시오: {known}."
    ),
    "whet has no table of the family {family}, so it does not know its modules, which an adapter has to name. Leave "
    "repair out.": "whet에 {family} 계열의 표가 없어 어댑터가 가리킬 모듈을 모릅니다. repair를 빼십시오.",
    "{family} stacks its experts in one parameter, which is no module that an adapter could name. Leave repair out, "
    "or give a plan that keeps the experts as they are.": (
        "{family}은(는) 전문가를 한 파라미터에 쌓아 어댑터가 가리킬 모듈이 없습니다. repair를 빼거나 전문가를 그대로 "
        "두는 계획을 주십시오."
    ),
    "repair has nothing to repair: no linear of the blocks is rounded to codes. Leave repair out.": (
        "블록에 코드로 반올림하는 선형층이 없어 복구할 것이 없습니다. repair를 빼십시오."
    ),
    # transforms
    "--transform {kind} folds into nothing of {model}. Leave it out. ({why})": (
        "--transform {kind}은(는) {model}에서 접힐 곳이 없습니다. 빼십시오. ({why})"
    ),
    "{kind} needs attention with several heads whose v is rounded": (
        "{kind}에는 v를 반올림하는 다중 헤드 어텐션이 필요합니다"
    ),
    "{model}: {kind} loses KL {kl} nats a token before anything is rounded to codes, as {tables} stay in 16 bits. "
    "Round them too (--embed with a scheme of 8 bits or fewer), or go on without --transform.": (
        "{model}: {tables}이(가) 16비트로 남아 {kind}은(는) 코드로 반올림하기도 전에 토큰당 KL {kl} nat을 잃습니다. "
        "그것도 반올림하거나(--embed에 8비트 이하의 방식) --transform 없이 하십시오."
    ),
    "{model}: {kind} loses KL {kl} nats a token before anything is rounded to codes, as embedding and head stay in "
    "16 bits. Round them too (--embed with a scheme of 8 bits or fewer), or go on without --transform.": (
        "{model}: 임베딩과 출력층이 16비트로 남아 {kind}은(는) 코드로 반올림하기도 전에 토큰당 KL {kl} nat을 잃습니다. "
        "그것도 반올림하거나(--embed에 8비트 이하의 방식) --transform 없이 하십시오."
    ),
    "{model}: {kind} loses KL {kl} nats a token before anything is rounded to codes, as embedding stay in 16 bits. "
    "Round them too (--embed with a scheme of 8 bits or fewer), or go on without --transform.": (
        "{model}: 임베딩이 16비트로 남아 {kind}은(는) 코드로 반올림하기도 전에 토큰당 KL {kl} nat을 잃습니다. 그것도 "
        "반올림하거나(--embed에 8비트 이하의 방식) --transform 없이 하십시오."
    ),
    "{model}: {kind} loses KL {kl} nats a token before anything is rounded to codes, as head stay in 16 bits. Round "
    "them too (--embed with a scheme of 8 bits or fewer), or go on without --transform.": (
        "{model}: 출력층이 16비트로 남아 {kind}은(는) 코드로 반올림하기도 전에 토큰당 KL {kl} nat을 잃습니다. 그것도 "
        "반올림하거나(--embed에 8비트 이하의 방식) --transform 없이 하십시오."
    ),
    "{model}: with {kind} folded in it computes something else than before (KL {kl} nats a token). This is a defect "
    "of whet; please report it with the model's config.json, and go on without --transform.": (
        "{model}: {kind}을(를) 접어 넣자 전과 다른 것을 계산합니다(토큰당 KL {kl} nat). whet의 결함이니 모델의 "
        "config.json과 함께 알려 주시고, --transform 없이 하십시오."
    ),
    "--transform {kind} turns the residual stream, which the family {family} does not allow: {why}. Take another "
    "transform: awq, smooth, rotate or auto.": (
        "--transform {kind}은(는) 잔차 흐름을 돌리는데 {family} 계열에서는 할 수 없습니다: {why}. 다른 변환을 "
        "쓰십시오: awq, smooth, rotate, auto."
    ),
    "--transform {kind} has nothing to help: no linear of the blocks is rounded. Leave it out.": (
        "블록에 반올림하는 선형층이 없어 --transform {kind}이(가) 도울 것이 없습니다. 빼십시오."
    ),
    "its LayerNorms take the mean over channels away, which is another one once they are turned": (
        "LayerNorm이 채널의 평균을 빼는데, 채널을 돌리면 그 평균이 달라집니다"
    ),
    "norms weigh what its blocks write channel by channel, before the residual stream": (
        "블록이 쓰는 것에 norm이 잔차 흐름 앞에서 채널마다 가중치를 곱합니다"
    ),
    "two stacks and the position biases between them read one embedding, which whet has no table of": (
        "두 스택과 그 사이의 위치 편향이 한 임베딩을 읽는데 whet에 그 표가 없습니다"
    ),
    "no table names {names}, which may read it": "{names}의 표가 없는데 그것이 읽을 수도 있습니다",
    # planning
    "{family} cannot be scored, so there is no planning by budget for it: {why}. Give one scheme for all of it "
    "(whet compress --scheme W4A16), or a plan of your own (--plan).": (
        "{family}은(는) 점수를 매길 수 없어 예산으로 계획하지 못합니다: {why}. 전체에 한 방식을 주거나(whet compress "
        "--scheme W4A16) 직접 만든 계획을 주십시오(--plan)."
    ),
    "A plan needs one budget, {count} were given. Give one of fit (400MB, 25%), bits (3.5) and quality (0.98).": (
        "계획에는 예산이 하나 필요한데 {count}개를 주었습니다. fit(400MB, 25%), bits(3.5), quality(0.98) 가운데 하나를 "
        "주십시오."
    ),
    "A budget is planned from what the model does on text: give --text FILE, of the kind it is used for.": (
        "예산은 모델이 글에서 하는 것으로 계획합니다. 모델을 쓸 곳과 같은 종류의 글을 --text FILE로 주십시오."
    ),
    "Scoring needs text: give --text FILE, of the kind the model is used for.": (
        "점수를 매기려면 글이 필요합니다. 모델을 쓸 곳과 같은 종류의 글을 --text FILE로 주십시오."
    ),
    "Inspecting needs text of the kind the model is used for: give --text FILE.": (
        "살펴보려면 모델을 쓸 곳과 같은 종류의 글이 필요합니다. --text FILE을 주십시오."
    ),
    "{budget} is measured on text that solves nothing, and too little is left for that: give more text, or --eval "
    "FILE.": (
        "{budget}은(는) 푸는 데 쓰지 않는 글에서 재는데 남은 것이 모자랍니다. 글을 더 주거나 --eval FILE을 주십시오."
    ),
    "{budget} is no less than the original takes already: nothing has to be made lighter.": (
        "{budget}은(는) 원본이 이미 차지하는 것보다 작지 않아 가볍게 할 것이 없습니다."
    ),
    "{budget} was not kept by any of the {count} mixes that were made and measured ({tried}). The limit on KL is "
    "{limit}. Ask for less, give more items of the skill that falls short, or compress with a larger scheme. What "
    "was measured stays for whet resume.": (
        "만들어 잰 혼합 {count}개({tried}) 가운데 {budget}을(를) 지킨 것이 없습니다. KL의 한계는 {limit}입니다. 덜 "
        "요구하거나, 모자란 능력의 문항을 더 주거나, 더 큰 방식으로 압축하십시오. 잰 것은 whet resume을 위해 남겨 "
        "둡니다."
    ),
    "{bytes} bytes: KL {kl}, lowest retention {share} ({skill})": (
        "{bytes}바이트: KL {kl}, 가장 낮은 유지율 {share} ({skill})"
    ),
    "{bytes} bytes: KL {kl}": "{bytes}바이트: KL {kl}",
    # the folder and the machine
    "{out} is a file. Name a folder for the lighter model.": "{out}은(는) 파일입니다. 경량본을 둘 폴더를 주십시오.",
    "{out} is the original's own folder, which is never changed. Name another folder.": (
        "{out}은(는) 원본의 폴더라 바꾸지 않습니다. 다른 폴더를 주십시오."
    ),
    "{out} is not empty (it holds {name}). Name a new folder, or empty this one.": (
        "{out}이(가) 비어 있지 않습니다({name}이(가) 있습니다). 새 폴더를 주거나 비우십시오."
    ),
    "{out} cannot be made: {place} is a file. Name a folder that is in a folder.": (
        "{out}을(를) 만들 수 없습니다. {place}은(는) 파일입니다. 폴더 안의 폴더를 주십시오."
    ),
    "{out} cannot be made: you may not write to {place}. Choose another folder.": (
        "{out}을(를) 만들 수 없습니다. {place}에 쓸 권한이 없습니다. 다른 폴더를 고르십시오."
    ),
    "The disk of {out} has {free} MB free; the lighter model needs {needs} MB. Free some space or choose another "
    "disk.": (
        "{out}의 디스크에 {free} MB가 비어 있는데 경량본에 {needs} MB가 필요합니다. 자리를 비우거나 다른 디스크를 "
        "고르십시오."
    ),
    "The run needs about {needs} GB of memory and {free} GB are free. Use fewer or shorter windows (--samples, "
    "--window), or a machine with more memory.": (
        "실행에 메모리가 약 {needs} GB 필요한데 {free} GB가 비어 있습니다. 창을 적거나 짧게 하거나(--samples, "
        "--window) 메모리가 더 많은 기계를 쓰십시오."
    ),
    "{folder} is being written by another whet at this moment. Wait for it, or name another folder.": (
        "지금 다른 whet이 {folder}에 쓰고 있습니다. 기다리거나 다른 폴더를 주십시오."
    ),
    # going on
    "{out} is finished: there is nothing to resume.": "{out}은(는) 끝났습니다. 이어서 할 것이 없습니다.",
    "{out} holds no stopped run. Give the folder that whet compress was writing to.": (
        "{out}에 멈춘 실행이 없습니다. whet compress가 쓰던 폴더를 주십시오."
    ),
    "{out} was begun by whet {before}, this is {now}. Install that, or start anew elsewhere.": (
        "{out}은(는) whet {before}(으)로 시작했는데 이것은 {now}입니다. 그 버전을 설치하거나 다른 곳에서 새로 "
        "시작하십시오."
    ),
    "{out} holds a stopped run that cannot go on: {what}. Give what it began with, or start in a new folder.": (
        "{out}에 멈춘 실행을 이어 갈 수 없습니다: {what}. 시작할 때와 같은 것을 주거나 새 폴더에서 시작하십시오."
    ),
    "the model {path} is not the one it began with (or has changed since)": (
        "모델 {path}이(가) 시작할 때의 것이 아닙니다(또는 그 뒤에 바뀌었습니다)"
    ),
    "{name} was {before} and is {now}": "{name}이(가) {before}에서 {now}(으)로 바뀌었습니다",
    "its plan is another": "계획이 다릅니다",
    "its text is another": "글이 다릅니다",
    "{out} holds a stopped run of another budget, model, text or version of whet. Give what it began with, or start "
    "in a new folder.": (
        "{out}에 예산, 모델, 글, whet 버전 가운데 무엇인가 다른 멈춘 실행이 있습니다. 시작할 때와 같은 것을 주거나 새 "
        "폴더에서 시작하십시오."
    ),
    "{out} holds a stopped run of another model or version of whet than this. Give what it began with, or start in "
    "a new folder.": (
        "{out}에 모델이나 whet 버전이 다른 멈춘 실행이 있습니다. 시작할 때와 같은 것을 주거나 새 폴더에서 시작하십시오."
    ),
    # what did not hold
    "{address}: its weights as {grid} exceed what {dtype} holds. Convert the original to bfloat16 or float32 first.": (
        "{address}: {grid}(으)로 바꾼 가중치가 {dtype}에 담기지 않습니다. 먼저 원본을 bfloat16이나 float32로 "
        "바꾸십시오."
    ),
    "{address}: what was stored is not what was solved. This is a defect of whet; please report it with the scheme "
    "({grid}) and the shape {shape}.": (
        "{address}: 저장한 것이 푼 것과 다릅니다. whet의 결함이니 방식({grid})과 모양 {shape}을(를) 적어 알려 주십시오."
    ),
    "{out}: the lighter model computes values that are not finite on its own calibration text.": (
        "{out}: 경량본이 자신을 보정한 글에서 유한하지 않은 값을 냅니다."
    ),
    "{out}: generation with a cache differs from generation without by {gap} in the logits.": (
        "{out}: 캐시를 쓸 때와 쓰지 않을 때의 생성이 로짓에서 {gap}만큼 다릅니다."
    ),
    "{out}: stock transformers computes other logits than were solved (largest difference {difference}). Check the "
    "versions of transformers and compressed-tensors (>= 0.18).": (
        "{out}: transformers가 푼 것과 다른 로짓을 냅니다(가장 큰 차이 {difference}). transformers와 "
        "compressed-tensors(>= 0.18)의 버전을 확인하십시오."
    ),
    "{folder}: hidden states after the last block are NaN or infinite on this text. The weights are damaged or the "
    "config is not their own. Download the model again.": (
        "{folder}: 이 글에서 마지막 블록 뒤의 은닉 상태가 NaN이거나 무한대입니다. 가중치가 깨졌거나 config가 다른 "
        "모델의 것이니 모델을 다시 내려받으십시오."
    ),
    "{address}: {count} inputs are NaN or infinite, first at token {token}. The original overflows on this text, in "
    "float32: its weights are damaged or the config is not its own. Try other text (--text), then another download.": (
        "{address}: 입력 {count}개가 NaN이거나 무한대이고 처음은 {token}번 토큰입니다. 원본이 이 글에서 float32로도 "
        "넘치니 가중치가 깨졌거나 config가 다른 모델의 것입니다. 다른 글(--text)을 써 보고, 그래도 그러면 다시 "
        "내려받으십시오."
    ),
    # training
    "{path}: the training state cannot be written ({error}). Free some disk space or choose another folder, then "
    "resume.": "{path}: 훈련 상태를 쓸 수 없습니다({error}). 디스크를 비우거나 다른 폴더를 고른 뒤 이어서 하십시오.",
    "the loss of step {step} is {loss}, so training stops before the weights are ruined. Lower the learning rate "
    "(peak {peak}) and start again.": (
        "{step}번째 단계의 손실이 {loss}이라 가중치가 망가지기 전에 훈련을 멈춥니다. 학습률(최대 {peak})을 낮추어 다시 "
        "시작하십시오."
    ),
    "schedule kind {kind} is not known. Use cosine or wsd.": (
        "{kind}은(는) 모르는 학습률 일정입니다. cosine이나 wsd를 쓰십시오."
    ),
    "{file} was saved by training with another model, schedule or settings. Use another folder, or delete it to "
    "start again.": (
        "{file}은(는) 모델, 일정, 설정 가운데 무엇인가 다른 훈련이 저장한 것입니다. 다른 폴더를 쓰거나, 새로 "
        "시작하려면 지우십시오."
    ),
    "{folder} holds an unfinished training. Add --resume to go on with it, or delete it.": (
        "{folder}에 끝나지 않은 훈련이 있습니다. 이어서 하려면 --resume을 붙이고, 아니면 지우십시오."
    ),
    "{folder} holds a training of size {was}, not {size}. Go on with that, or delete it.": (
        "{folder}의 훈련은 크기가 {size}이(가) 아니라 {was}입니다. 그것을 이어서 하거나 지우십시오."
    ),
    "split {split} is not one of {known}.{near}": "{split}은(는) {known} 가운데 하나가 아닙니다.{near}",
}
