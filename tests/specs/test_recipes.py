"""Recipes: the way to disk and back, the two hashes, and wrong input that gets one teaching message."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from recipes_for_all import layouts, model, pretrains, recipes, refs

from lablib.specs import (
    GRPO,
    PPO,
    SFT,
    Calibrate,
    Cluster,
    DoReMi,
    Evaluate,
    Export,
    LabError,
    Mixture,
    Optimizer,
    Parallelism,
    Preference,
    Prepare,
    Pretrain,
    Recipe,
    Ref,
    Reward,
    Schedule,
    Task,
    load_recipe,
    parse_recipe,
)
from lablib.specs.stages import STAGES

EACH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TASK = Task(name="sums", generator="chain_sum")


@EACH
@given(recipes)
def test_json_and_toml_give_the_same_recipe_back(recipe: Recipe) -> None:
    for again in (type(recipe).from_json(recipe.to_json()), type(recipe).from_toml(recipe.to_toml())):
        assert again == recipe
        assert (again.content_hash, again.science_hash) == (recipe.content_hash, recipe.science_hash)


@EACH
@given(recipes)
def test_a_recipe_is_found_again_by_its_stage(recipe: Recipe) -> None:
    assert parse_recipe(json.loads(recipe.to_json())) == recipe
    assert recipe.stage in STAGES


@given(recipe=recipes)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_files_of_both_kinds_load_as_the_same_recipe(recipe: Recipe, tmp_path: Path) -> None:
    for name in ("recipe.json", "recipe.toml"):
        recipe.save(tmp_path / name)
        assert load_recipe(tmp_path / name) == recipe
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.json", "recipe.toml"]


EXECUTION = {
    "name": "other",
    "threads": 7,
    "recompute": "full",
    "compile": True,
    "checkpoint_every": 3,
    "keep_checkpoints": 5,
    "log_every": 2,
    "eval_every": 4,
}
"""Execution fields with values that `pretrains` never draws, or draws so that a change still is one."""
SCIENCE = {"seed": 77, "tokens": 12345, "document_mask": False, "precision": "fp32", "optimizer": Optimizer(learning_rate=0.5),
           "schedule": Schedule(kind="cosine", warmup=0.123), "mixture": Mixture(max_epochs=3), "data": "other"}  # fmt: skip


@EACH
@given(pretrains(), st.sampled_from(sorted(EXECUTION)))
def test_how_it_runs_is_not_what_it_is(recipe: Pretrain, field: str) -> None:
    other = recipe.replace(**{field: EXECUTION[field]})
    assert other.science_hash == recipe.science_hash
    assert (other.content_hash == recipe.content_hash) == (other == recipe)


@EACH
@given(pretrains(), st.sampled_from(sorted(SCIENCE)))
def test_what_it_is_changes_the_science(recipe: Pretrain, field: str) -> None:
    other = recipe.replace(**{field: SCIENCE[field]})
    assume(other != recipe)
    assert other.science_hash != recipe.science_hash


@EACH
@given(layouts, layouts)
def test_two_layouts_of_one_experiment_are_the_same_experiment(one: Parallelism, other: Parallelism) -> None:
    rounds = 64 * one.micro_batch_size * one.dp * other.micro_batch_size * other.dp
    first, second = (
        Pretrain(model=model, tokens=10**6, seq_len=64, batch_tokens=rounds, parallelism=p) for p in (one, other)
    )
    assert first.step_tokens == second.step_tokens == rounds
    assert first.science_hash == second.science_hash


MADE = Ref(run="a", artefact="data", science="0" * 16)
SMALL = {"model": model, "tokens": "10M", "seq_len": 64, "batch_tokens": 64 * 64}
OLD = {
    "0c147aa004ec8f27": Prepare(),
    "81f5495f5aca2902": Prepare(clean="gopher"),
    "b0288081bb08bec9": Prepare(dedup={}),
    "e2076d21228f7fe3": Prepare(decontaminate={}),
    "138f15ace3219f50": Pretrain(**SMALL),
    "b67bc6583af5d38d": Pretrain(**SMALL, schedule={"kind": "cosine"}),
    "954f26e0f3f51f1f": Pretrain(**SMALL, optimizer={"kind": "muon"}),
    "4cb4c865af3fc5bf": Preference(model=MADE, data={"name": "sum", "generator": "chain_sum"}),
    "5718e0a28e01c91b": Reward(model=MADE, data={"name": "sum", "generator": "chain_sum"}),
    "fa80f55a2e476bc8": GRPO(model=MADE, task={"name": "sum", "generator": "chain_sum"}),
    "003968ff4f358142": PPO(model=MADE, reward=MADE, task={"name": "sum", "generator": "chain_sum"}),
    "2bd69f4bf7ab229e": Export(model=MADE),
    "50f2237281869b02": Calibrate(),
}
"""Recipes under the hash that they had at commit 1e1bae9; runs from then are found by it."""


@pytest.mark.parametrize("known", OLD)
def test_an_old_recipe_is_the_experiment_that_it_was(known: str) -> None:
    assert OLD[known].science_hash == known


@pytest.mark.parametrize("unread", [{"mup": {"hidden": 32}}, {"z_loss": 1e-4}, {"stability": {"patience": 5}}])
def test_a_doremi_proxy_refuses_what_it_does_not_read(unread: dict[str, object]) -> None:
    usual = {**SMALL, "data": MADE, "batch_tokens": 64, "model": model.replace(tied_embeddings=False)}
    assert DoReMi(proxy=Pretrain(**usual), reference=MADE)
    with pytest.raises(LabError, match=rf"proxy.{next(iter(unread))}=.*leave it out"):
        DoReMi(proxy=Pretrain(**usual, **unread), reference=MADE)


def test_a_layout_that_rounds_the_batch_differently_is_another_experiment() -> None:
    base = {"model": model, "tokens": 10**6, "seq_len": 64, "batch_tokens": 64 * 100}
    whole = Pretrain(**base)
    rounded = Pretrain(**base, parallelism=Parallelism(dp_shard=3))
    assert rounded.step_tokens == 64 * 99
    assert rounded.science_hash != whole.science_hash


@EACH
@given(refs, st.text("abc", min_size=1, max_size=5))
def test_where_an_input_was_made_does_not_matter_but_how_does(ref: Ref, other: str) -> None:
    here, there = SFT(model=ref, data=TASK), SFT(model=ref.replace(run=other), data=TASK)
    assert here.science_hash == there.science_hash
    assert SFT(model=ref.replace(science="0" * 15 + "x"), data=TASK).science_hash != here.science_hash
    assert (
        SFT(model=ref.replace(artefact="another"), data=TASK).science_hash != here.science_hash
        or ref.artefact == "another"
    )
    assert here.refs() == [ref]


def test_references_are_found_wherever_they_hide() -> None:
    one, two = (Ref(run=name, artefact="model", science="x") for name in ("a", "b"))
    recipe = Evaluate(models={"base": one, "tuned": two}, data=one.replace(artefact="data"))
    assert set(map(str, recipe.refs())) == {"a:model", "b:model", "a:data"}


BAD = [
    (lambda: Pretrain(model="llama-9", tokens="1B"), ["model", "'llama-9'", "llama"]),
    (lambda: Pretrain(model=model, tokens=-5), ["tokens", "-5"]),
    (lambda: Pretrain(model=model, tokens="1B", sequence=4), ["sequence", "no such field"]),
    (lambda: Pretrain(model=model, tokens="1B", parallelism=Parallelism(tp=3)), ["tp=3", "heads=4"]),
    (lambda: Pretrain(model=model, tokens="1B", seq_len=10**6, batch_tokens=10**6), ["seq_len=1000000", "max_seq_len=4096"]),
    (lambda: Pretrain(model=model, tokens="1B", seq_len=1024, batch_tokens=1500), ["batch_tokens=1500", "1024 is the nearest"]),
    (lambda: Pretrain(model=model, tokens="1B", precision="int4"), ["precision", "'int4'", "bf16"]),
    (lambda: Pretrain(model=model, tokens="1B", name="../escape"), ["name", "'../escape'", "a-z"]),
    (lambda: Parallelism(dp_shard=2, ep=4), ["ep=4", "must divide"]),
    (lambda: Parallelism(tp=0), ["tp", "greater than 0"]),
    (lambda: Schedule(warmup=0.9, decay=0.5), ["warmup=0.9", "decay=0.5"]),
    (lambda: Optimizer(betas=(0.9, 1.0)), ["betas", "less than 1"]),
    (lambda: Mixture(weights={"a": 0.5, "b": 0.4}), ["0.9000", "sum to 1"]),
    (lambda: Mixture(weights={"a": -0.5, "b": 1.5}), ["must not be negative"]),
    (lambda: Evaluate(models={}), ["models"]),
    (lambda: Evaluate(models={"a": "x"}), ["tasks", "data"]),
    (lambda: Evaluate(models={"a": "x"}, tasks=(TASK,), baseline="b"), ["baseline='b'", "'a'"]),
    (lambda: GRPO(model="x", task=TASK, group_size=1), ["group_size", "greater than 1"]),
    (lambda: Prepare(heldout=0.9), ["heldout", "0.9"]),
    (lambda: Cluster(accelerator="h1000"), ["accelerator", "h1000", "h100-sxm"]),
    (lambda: parse_recipe({"stage": "dream"}), ["stage='dream'", "pretrain"]),
    (lambda: parse_recipe({"stage": "sft", "data": "x"}), ["model"]),
    (lambda: load_recipe("no/such.toml"), ["no/such.toml"]),
    (lambda: load_recipe(sys.executable), ["cannot be read", "utf-8"]),
    (lambda: Pretrain.from_json("[1]"), ["JSON table"]),
    (lambda: Pretrain.from_toml("x = "), ["not TOML"]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD, ids=[" ".join(words)[:40] for _, words in BAD])
def test_wrong_input_gets_one_message_that_names_field_value_and_remedy(make: object, words: list[str]) -> None:
    with pytest.raises(LabError) as caught:
        make()  # type: ignore[operator]
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "pydantic" not in message and "Traceback" not in message and len(message) < 500
    assert not isinstance(caught.value.__cause__, ValidationError)


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(LabError) as caught:
        Pretrain(model=model, tokens=-1, log_every=0, color="red")
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "tokens",
        "log_every",
        "color",
    ]


@pytest.mark.parametrize("name", ["", "a b", "A", "-a", "a/b", "..", "a..b", "ü", "a" * 81, ".hidden", "a\n"])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="run"):
        Ref(run=name, artefact="model", science="x")


def test_recipes_are_frozen_and_named_by_their_stage() -> None:
    recipe = Prepare()
    assert recipe.name == "prepare" == recipe.stage
    with pytest.raises(ValidationError):
        recipe.seed = 3  # type: ignore[misc]
    with pytest.raises(LabError, match="there is no such field"):
        recipe.replace(colour="red")
    with pytest.raises(LabError, match="tokens"):
        Pretrain(model=model, tokens=5).replace(tokens=-5)


def test_the_notebook_rendering_escapes_what_users_write() -> None:
    html = Prepare(corpus="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_a_rule_that_takes_another_backward_pass_is_refused_with_the_reason() -> None:
    with pytest.raises(LabError, match=r"another backward pass.*use 'soap', 'shampoo' or 'muon'"):
        Pretrain(**SMALL, optimizer={"kind": "sophia"})
