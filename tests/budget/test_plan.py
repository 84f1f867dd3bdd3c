"""Plans: what is written is what is read, what was edited is checked, and every fault is named where it stands."""

from __future__ import annotations

import json

import pytest
import torch

import models
from whet.anatomy import anatomy
from whet.budget import (
    check_model,
    check_plan,
    parse_size,
    plan_hash,
    plan_schema,
    read_plan,
    schemes_hash,
    tables,
    tensor_bytes,
    write_plan,
)
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from wording import each

DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    checkpoint = Checkpoint(models.make(tmp_path_factory.mktemp("m"), dtype=torch.bfloat16, with_tokenizer=False))
    return anatomy(checkpoint.config, checkpoint.shapes), checkpoint.tensors


def plan(parts, scheme="int4s-g32", embed="keep", **more):
    """A plan of one scheme; `schemes` in `more` changes single ones."""
    schemes = {linear.address: scheme for linear in parts.linears()} | {t.address: embed for t in tables(parts)}
    changes = more.pop("schemes", {})
    return {"format": "whet.plan", "version": 1, "target": "transformers", "schemes": {**schemes, **changes}, **more}


def full(parts, tensors):
    """A plan with every key there is."""
    bare = plan(parts)
    size = check_plan(bare, parts, tensors).bytes["total"]
    point = {"bytes": size, "bits": 5.0, "kl": 0.01}
    return {
        **bare,
        "groups": {},
        "model": {"name": "tiny", "sha256": "a" * 64},
        "solver": "gptq",
        "budget": {"kind": "bytes", "asked": "25%", "bytes": size + 10, "value": float(size + 10)},
        "predicted": {**point, "by_part": dict.fromkeys(bare["schemes"], 0.001)},
        "measured": [
            {
                "tokens": 4096,
                "trial": True,
                "bytes": size,
                "predicted_kl": 0.01,
                "measured_kl": 0.02,
                "top1": 0.9,
                "retention": {"sums": 1.0},
            }
        ],
        "gap": {"bound": 0.009, "relative": 0.1, "among": "all", "free": None},
        "frontier": [point],
        "uniform": [{**point, "scheme": "int4s-g32", "embed": "keep"}],
        "left_out": ["transformers has no …"],
        "scorer": "gradient",
        "text": {"source": "corpus.txt", "windows": 3},
        "notes": ["한국어", {"message": "3 of 5", "template": "{some} of {all}", "values": {"some": 3, "all": 5}}],
    }


def refused(what, value, tmp_path=None, check=None):
    """The message about a plan that must be refused: one paragraph that names every part of `what`."""
    with pytest.raises(UsageError) as raised:
        if check is not None:
            check_plan(value, *check)
        else:
            read_plan(value)
    message = str(raised.value)
    assert all(part in message for part in what), message
    assert "\n" not in message and 30 < len(message) < 700
    return message


# -- reading and writing ----------------------------------------------------------------------------------------------


def test_what_is_written_is_read(original, tmp_path):
    made = full(*original)
    write_plan(tmp_path / "p.json", made)
    again = read_plan(tmp_path / "p.json")
    of = again["predicted"].pop("of")
    assert again == made and of == schemes_hash(made["schemes"])
    assert "한국어" in (tmp_path / "p.json").read_text(encoding="utf-8")
    write_plan(tmp_path / "q.json", read_plan(tmp_path / "p.json"))
    assert (tmp_path / "q.json").read_bytes() == (tmp_path / "p.json").read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"p.json", "q.json"}


def test_a_plan_by_hand_needs_target_and_schemes_alone(original, tmp_path):
    bare = plan(original[0])
    (tmp_path / "p.json").write_text(json.dumps({"$schema": "plan.schema.json", **bare}))
    again = read_plan(tmp_path / "p.json")
    assert again["solver"] == "gptq" and again["predicted"] is None and again["measured"] == []
    assert again == read_plan(bare) and plan_hash(again) == plan_hash(bare)


def test_groups_are_a_shorter_way_to_say_schemes(original):
    parts, tensors = original
    groups = {
        "attention": {"addresses": ["*.self_attn.*"], "choice": {"schemes": "int8s"}},
        "ffn": {"addresses": ["*.mlp.*"], "choice": {"schemes": {"*.down_proj": "int4s-g16", "*": "int4s-g32"}}},
        "tables": {"addresses": ["model.embed_tokens", "lm_head"], "choice": {"schemes": "keep"}},
    }
    bare = {"format": "whet.plan", "version": 1, "target": "transformers", "groups": groups, "schemes": {DOWN: "int8s"}}
    found = check_plan(bare, parts, tensors)
    flat = {x.address: "int8s" if "self_attn" in x.address else "int4s-g32" for x in parts.linears()}
    flat |= {address: "int4s-g16" for address in flat if address.endswith("down_proj")} | {DOWN: "int8s"}
    assert {address: grid.name for address, grid in found.grids.items()} == flat
    assert found.bytes == check_plan(plan(parts, schemes=flat), parts, tensors).bytes
    for change, what in (
        ({"more": {"addresses": ["*.mlq.*"], "choice": {"schemes": "int8s"}}}, ["group more", "*.mlq.*"]),
        ({"more": {"addresses": ["*.mlp.*"], "choice": {"schemes": "int8s"}}}, ["in group ffn", "in group more"]),
        (
            {"ffn": {"addresses": ["*.mlp.*"], "choice": {"schemes": {"*.up_proj": "int8s"}}}},
            ["group ffn has no scheme"],
        ),
    ):
        refused(what, {**bare, "groups": groups | change}, check=original)


def test_a_hash_is_of_the_content_not_of_its_order(original):
    bare = plan(original[0])
    turned = {**bare, "schemes": dict(reversed(bare["schemes"].items()))}
    assert plan_hash(turned) == plan_hash(bare) and schemes_hash(turned["schemes"]) == schemes_hash(bare["schemes"])
    assert plan_hash(plan(original[0], schemes={DOWN: "keep"})) != plan_hash(bare)


def test_the_schema_describes_plans():
    schema = plan_schema()
    assert schema["$schema"].startswith("https://json-schema.org/") and schema["additionalProperties"] is False
    assert set(schema["required"]) == {"format", "version", "target"}
    assert {"$schema", "predicted", "frontier"} <= set(schema["properties"])
    json.dumps(schema)


FAULTS = {
    "a key": ({"shemes": {}}, ["shemes is not known", "Did you mean schemes?"]),
    "a key inside": ({"budget": {"knd": "bits"}}, ["budget.knd is not known", "Did you mean kind?", "asked"]),
    "a key in a list": (
        {"uniform": [{"scheme": "int8s", "embd": "keep", "bytes": 1, "bits": 2, "kl": 0}]},
        ["uniform[0].embd is not known", "Did you mean embed?"],
    ),
    "a type": ({"budget": {"bytes": "many"}}, ["budget.bytes is 'many'", "integer"]),
    "a choice": ({"budget": {"kind": "byte"}}, ["budget.kind is 'byte'", "'bytes'"]),
    "infinity": ({"gap": {"bound": float("inf"), "relative": 0}}, ["gap.bound", "finite"]),
    "missing": ({"schemes": None}, ["schemes", "dictionary"]),
    "another format": ({"format": "whet.scores"}, ["is not a plan", "whet.plan"]),
    "a later version": ({"version": 2}, ["version 2", "Update whet"]),
}


@each("name", FAULTS)
def test_a_fault_is_named_where_it_stands(original, name):
    change, what = FAULTS[name]
    refused(what, {**plan(original[0]), **change})


def test_a_file_that_is_no_plan(original, tmp_path):
    text = json.dumps(plan(original[0]), indent=1)
    (tmp_path / "plan.json").write_text(text)
    refused(["pln.json", "no such file", "Did you mean plan.json?"], tmp_path / "pln.json")
    (tmp_path / "plan.json").write_text(text.replace('"version": 1,', '"version": 1'))
    refused(["plan.json", "not valid JSON", "line 4 column 2"], tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("[]")
    refused(["plan.json", "JSON object"], tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text(text.replace('"version": 1', f'"version": 1, "{DOWN}": 1, "{DOWN}": 2'))
    refused(["plan.json", DOWN, "twice"], tmp_path / "plan.json")


# -- against a model --------------------------------------------------------------------------------------------------


def test_a_plan_that_fits_gives_grids_storage_and_exact_bytes(original):
    parts, tensors = original
    value = plan(parts, schemes={DOWN: "Keep", "lm_head": " keep ", "model.layers.0.mlp.up_proj": "W8A16"})
    made = check_plan(value, parts, tensors, scale_dtype=torch.bfloat16)
    assert len(made.grids) == 13 and DOWN not in made.grids and made.notes == []
    assert made.grids["model.layers.0.mlp.up_proj"].name == "int8s"
    assert {grid.scale_dtype for grid in made.grids.values()} == {torch.bfloat16}
    assert made.storage.container == "compressed-tensors"
    assert made.bytes == tensor_bytes(parts, tensors, made.grids)


WRONG = {
    "a typo": (
        {"model.layers.3.mlp.down_prj": "int8s"},
        ["no model.layers.3.mlp.down_prj", "Did you mean model.layers."],
    ),
    "a tensor": ({f"{DOWN}.weight": "int8s"}, ["without .weight", f"Did you mean {DOWN}?"]),
    "a scheme": ({DOWN: "int4s-h32"}, [DOWN, "'int4s-h32'", "Did you mean int4s-g32?", "keep"]),
    "what the target lacks": ({DOWN: "int4s-g64"}, [DOWN, "64 does not divide 96", "--for whet"]),
}


@each("name", WRONG)
def test_a_scheme_that_cannot_be_is_named(original, name):
    change, what = WRONG[name]
    refused(what, plan(original[0], schemes=change), check=original)


def test_addresses_that_are_missing_are_named(original):
    bare = plan(original[0])
    for address in [a for a in bare["schemes"] if "mlp" in a]:
        del bare["schemes"][address]
    refused(["no scheme for model.layers.0.mlp.gate_proj", "and 3 more", "keep"], bare, check=original)


def test_a_tied_head_has_no_scheme_of_its_own(tmp_path):
    checkpoint = Checkpoint(models.make(tmp_path, tied=True, with_tokenizer=False))
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    refused(
        ["lm_head is tied to model.embed_tokens", "Remove"],
        plan(parts, schemes={"lm_head": "int8s"}),
        check=(parts, checkpoint.tensors),
    )


def test_a_plan_that_keeps_everything_is_refused(original):
    refused(["nothing to make lighter"], plan(original[0], scheme="keep"), check=original)


def test_what_a_runtime_fuses_has_one_scheme(original):
    key = "model.layers.0.self_attn.k_proj"
    for other in ("int8s", "keep"):
        value = plan(original[0], target="vllm", schemes={key: other})
        refused(
            ["model.layers.0.self_attn", "vllm fuses", f"k_proj {other}", "v_proj int4s-g32"], value, check=original
        )
    check_plan(plan(original[0], target="vllm", schemes={DOWN: "keep"}), *original)


def test_an_unknown_target(original):
    refused(["'vlm'", "Did you mean vllm?"], plan(original[0], target="vlm"), check=original)


def test_a_plan_is_bound_to_its_model(original):
    value = read_plan(full(*original))
    check_model(value, "a" * 64)
    check_model(plan(original[0]) | {"model": {"name": "", "sha256": None}}, "b" * 64)
    with pytest.raises(UsageError, match=r"made for tiny .*aaaaaaaaaaaa….*bbbbbbbbbbbb….* model\.sha256"):
        check_model(value, "b" * 64)
    with pytest.raises(UsageError, match="made for tiny"):
        check_plan(value, *original, sha256="b" * 64)


def test_predictions_of_other_schemes_are_dropped(original, tmp_path):
    write_plan(tmp_path / "p.json", full(*original))
    whole = read_plan(tmp_path / "p.json")
    kept = check_plan(whole, *original)
    assert kept.plan == whole and kept.notes == []
    # edited: other bytes, and the same bytes at another place
    for changes in ({DOWN: "int8s"}, {DOWN: "keep", "model.layers.0.mlp.down_proj": "int4s-g32"}):
        edited = check_plan({**whole, "schemes": {**whole["schemes"], **changes}}, *original)
        assert (edited.plan["predicted"], edited.plan["gap"], edited.plan["measured"]) == (None, None, [])
        assert "were edited" in edited.notes[0] and edited.plan["frontier"] == whole["frontier"]
        assert "more than the" in edited.notes[1] and "its budget" in edited.notes[1]


def test_an_edit_that_leaves_the_bytes_as_they_were_is_seen_too(original, tmp_path):
    parts, tensors = original
    value = full(parts, tensors)
    first = {DOWN: "keep"}
    value["schemes"] |= first
    value["predicted"]["bytes"] = check_plan(plan(parts, schemes=first), parts, tensors).bytes["total"]
    value["budget"] = {}
    write_plan(tmp_path / "p.json", value)
    whole = read_plan(tmp_path / "p.json")
    assert check_plan(whole, parts, tensors).notes == []
    whole["schemes"] |= {DOWN: "int4s-g32", "model.layers.0.mlp.down_proj": "keep"}
    edited = check_plan(whole, parts, tensors)
    assert edited.bytes["total"] == whole["predicted"]["bytes"] and edited.plan["predicted"] is None


# -- sizes ------------------------------------------------------------------------------------------------------------


@each(
    "text,size",
    [
        ("400MB", 400_000_000),
        ("400 mb", 400_000_000),
        ("1.5GiB", 1610612736),
        ("2k", 2000),
        (".5MB", 500_000),
        ("1_000", 1000),
        (1000, 1000),
        ("25%", 2500),
        ("12.5 %", 1250),
    ],
)
def test_sizes_as_people_type_them(text, size):
    assert parse_size(text, 10_000) == size


@each(
    "text,what",
    [
        ("400XB", "XB is not a unit"),
        ("5Gbi", "Did you mean GB"),
        ("", "is not a size"),
        ("-3MB", "such as 400MB"),
        ("4,5MB", "is not a size"),
        ("4.0.0MB", "is not a size"),
        ("quarter", "25%"),
        ("0%", "more than 0%"),
        ("120%", "at most 100%"),
        ("0", "no room"),
        ("0.25", "a share such as 25%"),
    ],
)
def test_what_is_no_size_is_told_what_is(text, what):
    with pytest.raises(UsageError, match=what):
        parse_size(text, 10_000)
