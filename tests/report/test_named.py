from __future__ import annotations

import re

import pytest

from report.facts import facts
from whet.grids import BLOCKS, FLOATS, SMALL_FLOATS
from whet.grids.schemes import PRESETS
from whet.report.facts import loading
from whet.report.named import meaning, meanings
from whet.report.page import page, view
from whet.report.words import LANGUAGES, Words

EN, KO = Words("en"), Words("ko")
NAMES = [*BLOCKS, *FLOATS, *SMALL_FLOATS, *PRESETS, "int4-g32", "int3z-g64", "int8s", "nf4-g32"]


def test_every_scheme_is_explained_in_both_languages_and_none_that_is_no_scheme() -> None:
    for name in NAMES:
        assert len(meaning(name, EN)) > 10 and re.search("[가-힣]", meaning(name, KO)), name
    assert meaning("int4s-g64", EN) == "4-bit integers, symmetric around zero, one scale per 64 weights of a row"
    assert meaning("FP8", KO) == "8비트 부동소수점(E4M3), 행마다 스케일 하나"
    assert meaning("fp8-block", EN).endswith("one scale per block of 128 × 128")
    assert meaning("Q4_K", EN).startswith("4-bit integers") and "32 weights" in meaning("Q4_K", EN)
    assert [one["name"] for one in meanings(["nf4", "keep", "nonsense", "int8s", "nf4"], EN)] == ["int8s", "nf4"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_explains_the_schemes_that_occur(language: str) -> None:
    shown = view(facts(), Words(language))["schemes"]["named"]
    assert shown and all(one["text"] in page(facts()) for one in shown)


def test_one_is_not_many() -> None:
    assert "1 part, 1 scheme." in EN("schemes.lede", count=1, kinds=1)
    assert "12 parts, 3 schemes." in EN("schemes.lede", count=12, kinds=3)
    assert "(1 window from 1,000 documents)" in EN(
        "quality.lede", tokens=9, windows=1, documents="1,000", clustered="windows"
    )
    for given in (facts(), {"plan": facts()["plan"]}):
        assert "(s)" not in page(given)
        assert not re.search(r"\\b1 \\w+s\\b", page(given))


def test_code_to_load_names_the_folder_as_it_has_to_be_typed(tmp_path) -> None:
    manifest = {"target": "llama.cpp", "container": "whet", "adapter": {}, "gguf": {"adapter": {"file": "a b.gguf"}}}
    folder = tmp_path / 'my "own" model'
    codes = {one["runtime"]: one["how"] for one in loading(manifest, {}, folder)}
    assert f"-m '{folder}/model.gguf' --lora '{folder}/a b.gguf'" in codes["llama.cpp"]
    assert codes["whet"] == f"whet generate '{folder}' \"PROMPT\""
    compile(codes["transformers"], "page", "exec")
    assert '\\"own\\"' in codes["transformers"]
    plain = {one["runtime"]: one["how"] for one in loading(manifest, {})}
    assert plain["whet"] == 'whet generate FOLDER "PROMPT"'


def test_code_to_load_is_for_what_the_model_answers() -> None:
    """A classifier is loaded as one, and generates nothing."""
    config = {"model_type": "bert", "architectures": ["BertForTokenClassification"]}
    told = {one["runtime"]: one["how"] for one in loading({"target": "transformers", "container": "packed"}, config)}
    assert "AutoModelForTokenClassification.from_pretrained" in told["transformers"]
    assert told["whet"] == "whet compare ORIGINAL FOLDER --text FILE"
