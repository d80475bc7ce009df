"""The layout explorer says what the search says, and its state is the recipe that was priced."""

from __future__ import annotations

import pytest

from lablib.explorers import BudgetPlan, LayoutPlan
from lablib.plan import estimate
from lablib.plan.search import find_layouts
from lablib.specs import LabError


def test_the_screen_shows_the_search_and_its_recipe_is_priced_alike() -> None:
    screen = LayoutPlan(model="llama-3.1-8b", nodes=2)
    view, found = screen.view(), find_layouts("llama-3.1-8b", screen.cluster, 4_194_304, 8192)
    best = found.best.row()
    assert view.headlines[0].value == f"{len(found):,}"
    assert view.frames["fitting"]["rate"][0] == pytest.approx(best["tokens_per_second_per_gpu"], rel=1e-2)
    assert view.tables[0].rows[0][1:] == tuple(found.table(1)[1][0])[1:]
    priced = estimate(screen.recipe, screen.cluster)
    assert priced.fits
    assert priced.tokens_per_second_per_gpu == pytest.approx(best["tokens_per_second_per_gpu"], rel=1e-6)


def test_what_fits_lies_left_of_the_limit_and_what_does_not_says_why() -> None:
    frames = LayoutPlan(model="llama-3.1-70b", nodes=4).view().frames
    (limit,) = frames["limit"]["gib"]
    assert frames["fitting"]["gib"] and max(frames["fitting"]["gib"]) < limit
    assert frames["unfit"]["gib"] and all("GiB" in reason for reason in frames["unfit"]["reason"])


def test_where_nothing_fits_the_screen_says_so_and_has_no_recipe() -> None:
    screen = LayoutPlan(model="llama-3.1-405b", nodes=1)
    assert screen.view().headlines[0].note == "0 fit"
    with pytest.raises(LabError, match="Take more accelerators"):
        _ = screen.recipe


def test_the_budget_planner_prices_what_its_pipeline_and_loss_knobs_say() -> None:
    plain = BudgetPlan(gpus=64, seq_len=8192)
    chunked, piped = plain.replace(cross_entropy="chunked"), plain.replace(pipeline_parallel=4)
    peak = {one: estimate(one.recipe, one.cluster).memory.peak_gib for one in (plain, chunked, piped)}
    assert peak[chunked] < peak[plain] and piped.recipe.parallelism.dp_shard == 16
    with pytest.raises(LabError, match="does not divide 2 accelerators"):
        plain.replace(gpus=2, context_parallel=4).view()
