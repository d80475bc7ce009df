"""The mid-training planner: what it shows is priced from the recipes that it makes, and the knobs do what they name."""

from __future__ import annotations

import made
import pytest

from lablib.explorers import MidtrainPlan
from lablib.plan import estimate
from lablib.runs import Run
from lablib.specs import LabError, Mixture, ModelSpec, Parallelism, Pretrain, Ref, Schedule
from lablib.specs.units import show_seconds
from widgets import explore

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, head_dim=16, ffn=128, vocab=512, max_seq_len=256)
PARENT = Pretrain(model=MODEL, tokens=1_024_000, seq_len=256, batch_tokens=2048, mixture=Mixture(weights={"web": 1.0}),
                  schedule=Schedule(warmup=0.1, decay=0.3), parallelism=Parallelism(micro_batch_size=8), precision="fp32")  # fmt: skip

RUN = Ref(run="parent", artefact="model", science=PARENT.science_hash)


def plan(**inputs: object) -> MidtrainPlan:
    return MidtrainPlan(**{"parent": PARENT, "cluster": made.MACHINE, "start": RUN, **inputs})


def test_what_is_shown_is_what_is_priced() -> None:
    for kind in ("anneal", "continue", "extend"):
        screen = plan(kind=kind)
        told, shown = (
            estimate(screen.recipe, made.MACHINE),
            {item.label: item.value for item in screen.view().headlines},
        )
        assert (screen.recipe.kind, shown["Time"]) == (kind, show_seconds(told.days.mid * 86400))
        assert shown["Of all tokens"] == "15 %"
        row = {row[0]: row for row in screen.view().tables[0].rows}[kind]
        assert shown["Time"] in row and f"{screen.recipe.seq_len:,}" in row


def test_the_rate_goes_on_where_the_stable_phase_had_it() -> None:
    """From step 350 of 500, before the decay: never below the peak at the seam, nothing at the end of all tokens."""
    screen = plan(from_step=350, share=0.3)
    frame = screen.view().frames["rates"]
    peak, seam = PARENT.optimizer.learning_rate, 350 * 2048
    around = [rate for tokens, rate in zip(frame["tokens"], frame["rate"], strict=True) if 0.5 * seam < tokens <= seam]
    assert around and around == pytest.approx([peak] * len(around))
    assert frame["tokens"][-1] == pytest.approx(seam / 0.7, rel=1e-4) and frame["rate"][-1] < 0.02 * peak
    decayed = plan(share=0.3).view().frames["rates"]
    assert min(decayed["rate"][: len(decayed["rate"]) // 2]) < 0.02 * peak, "a finished model's rate has fallen already"


def test_replay_is_read_beside_the_new_domain_and_warned_of_outside_its_range() -> None:
    frames = plan(kind="continue", replay=0.25).view().frames["reads"]
    read = dict(zip(frames["label"], frames["value"], strict=True))
    assert read["domain"] == pytest.approx(3 * read["web"], rel=1e-5)
    assert any("may be forgotten" in note for note in plan(kind="continue", replay=0.0).view().notes)
    assert not any("may be forgotten" in note for note in plan(kind="continue", replay=0.2).view().notes)


def test_longer_sequences_cost_what_their_estimate_says_and_context_parallelism_shares_them() -> None:
    screen = plan(kind="extend", longer=8)
    frames = screen.view().frames
    told = estimate(screen.recipe, made.MACHINE)
    at = frames["length_memory"]["x"].index(2048)
    assert frames["length_memory"]["y"][at] == pytest.approx(told.memory.peak_gib, rel=1e-4)
    assert frames["length_rate"]["y"] == sorted(frames["length_rate"]["y"], reverse=True), (
        "attention grows with the square"
    )
    wide, split = MidtrainPlan(kind="extend", longer=16), MidtrainPlan(kind="extend", longer=16, cp=8)
    assert split.recipe.gpus == wide.recipe.gpus == wide.parent.gpus
    assert split.recipe.step_tokens == split.parent.step_tokens == wide.recipe.step_tokens / 8, "256 long sequences are 8 batches"  # fmt: skip
    before, after = (estimate(one.recipe, one.cluster).memory.parts["activations"] for one in (wide, split))
    assert after < before / 4
    with pytest.raises(LabError, match="cp=2 does not divide"):
        plan(kind="extend", cp=2).view()


def test_a_use_that_a_parent_has_not_says_why_beside_the_others() -> None:
    learned = ModelSpec(family="gpt2", layers=2, hidden=64, heads=4, ffn=256, vocab=512, max_seq_len=256)
    rows = {row[0]: row for row in plan(parent=PARENT.replace(model=learned)).view().tables[0].rows}
    assert "no rotary positions" in rows["extend"][1] and rows["anneal"][3] == rows["continue"][3] == "256"


def test_it_begins_from_a_pretraining(chain: list[Run]) -> None:
    data, trained = chain[:2]
    screen = MidtrainPlan.of(trained, made.MACHINE)
    assert screen.parent == trained.recipe and screen.start == trained.model
    with pytest.raises(LabError, match="is a prepare run"):
        MidtrainPlan.of(data, made.MACHINE)


def test_a_board_keeps_the_parent_and_moves_the_use() -> None:
    board = explore(plan())
    board.value = {**board.value, "kind": "extend", "method": "linear"}
    scaling = board.recipe.model.rope_scaling
    assert board.error == "" and scaling is not None and (scaling.kind, scaling.factor) == ("linear", 4)
    assert plan().view().words() == plan().view().words()
