"""Explorers: inputs with ranges, a pure view, and a state that is a recipe."""

from __future__ import annotations

import made
import pytest

from lablib.explorers import BudgetPlan, MiniPlan
from lablib.plan import estimate, forecast
from lablib.specs import LabError, Pretrain, Ref
from lablib.specs.units import show_flops, show_seconds
from widgets import explore


def test_what_is_shown_is_what_is_priced() -> None:
    """The headlines are the estimate of the explorer's own recipe on its own cluster."""
    plan = BudgetPlan(model="llama-3.1-8b", tokens=2_000_000_000_000, gpus=512)
    told = estimate(plan.recipe, plan.cluster)
    shown = {item.label: item.value for item in plan.view().headlines}
    assert shown["Compute"] == show_flops(told.flops.total)
    assert shown["Time"] == f"{told.days.mid:.1f} days"
    assert sum(plan.view().frames["parts"]["gib"]) == pytest.approx(told.memory.peak_gib, rel=1e-4)
    assert plan.view().frames["limit"]["gib"] == [80.0]


def test_the_sweep_passes_through_the_plan() -> None:
    """The chosen point lies on its curve, and the curve's ends are where the layout stops working."""
    frames = BudgetPlan(gpus=64).view().frames
    at = frames["days"]["x"].index(64)
    assert frames["days_here"] == {"x": [64], "y": [frames["days"]["y"][at]]}
    assert frames["days"]["x"][-1] * 4096 <= 4_194_304


def test_its_state_is_a_recipe_that_round_trips() -> None:
    """The recipe that is submitted says all that the knobs say."""
    recipe = BudgetPlan(tensor_parallel=4, recompute="full").recipe
    assert Pretrain.from_toml(recipe.to_toml()) == recipe
    assert (recipe.parallelism.tp, recipe.parallelism.gpus, recipe.recompute) == (4, 256, "full")


def test_a_view_is_pure() -> None:
    """Twice the same inputs, twice the same words and frames."""
    assert BudgetPlan().view().words() == BudgetPlan().view().words()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokens": -1}, "tokens"),
        ({"model": "llama-9"}, "nearest are"),
        ({"tensor_parallel": 3}, "tensor_parallel"),
        ({"colour": 1}, "no such field"),
    ],
)
def test_wrong_inputs_are_refused_with_the_remedy(wrong: dict[str, object], said: str) -> None:
    """By pydantic, as for every spec."""
    with pytest.raises(LabError, match=said):
        BudgetPlan(**wrong)


def test_inputs_that_do_not_go_together_say_what_to_change() -> None:
    """More ranks than sequences in a step: the message names the knobs."""
    with pytest.raises(LabError, match="raise tokens a step"):
        BudgetPlan(gpus=16384, batch_tokens=65_536).view()


def test_knobs_carry_ranges_units_and_choices() -> None:
    """What a renderer needs, from the declaration alone."""
    knobs = {knob["name"]: knob for knob in BudgetPlan.knobs()}
    assert list(knobs) == list(BudgetPlan.model_fields)
    assert (knobs["tokens"]["min"], knobs["tokens"]["log"], knobs["tokens"]["si"]) == (1e9, True, True)
    assert knobs["gpus"]["base"] == 2 and knobs["gpus"]["max"] == 16384
    assert knobs["precision"]["choices"] == ["bf16", "fp8", "mxfp8", "nvfp4", "fp32"]
    assert knobs["price"]["unit"] == "$/h each" and not knobs["price"]["whole"]


def test_a_board_recomputes_when_a_knob_moves() -> None:
    """As a browser would: the value trait changes, the screen and the recipe follow; a wrong state keeps the screen."""
    board = explore(BudgetPlan())
    before = board.screens[0]["headlines"]
    board.value = {**board.value, "gpus": 512}
    assert board.recipe.gpus == 512 and board.screens[0]["headlines"] != before
    shown = board.screens
    board.value = {**board.value, "batch_tokens": 65_536, "gpus": 16384}
    assert "raise tokens a step" in board.error and board.screens == shown
    board.value = {**board.value, "gpus": 16}
    assert board.error == ""


def test_the_small_plan_shows_the_forecast_that_will_be_registered() -> None:
    """Time, memory and the band are those of the recipe it makes, on the machine it is given."""
    plan = MiniPlan(cluster=made.MACHINE, tokens=200_000, hidden=256)
    told, curve = estimate(plan.recipe, made.MACHINE), forecast(plan.recipe)
    view = plan.view()
    shown = {item.label: item for item in view.headlines}
    assert shown["Time"].value == show_seconds(told.days.mid * 86400)
    assert curve is not None and view.frames["band"]["mid"][-1] == pytest.approx(curve.final.mid, rel=1e-5)
    assert shown["Expected loss"].value == f"{curve.final.mid:.3f}"
    assert plan.recipe.model.hidden == 256 and plan.recipe.tokens == 200_000
    assert "cluster" not in {knob["name"] for knob in MiniPlan.knobs()}


def test_a_board_keeps_what_no_knob_moves() -> None:
    """The machine and the data reference survive the way through the browser."""
    data = Ref(run="data-1", artefact="data", science="ab")
    board = explore(MiniPlan(cluster=made.MACHINE, data=data))
    board.value = {**board.value, "layers": 6}
    assert board.recipe.data == data and board.recipe.model.layers == 6 and board.error == ""
