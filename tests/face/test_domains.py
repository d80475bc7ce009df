"""What a run's screen and report say of its domains, against the order of windows itself and counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lablib.charts import svg
from lablib.charts.mixture import DRAWN, labels
from lablib.data.mixing import WindowOrder
from lablib.explorers import Monitor, View
from lablib.explorers.domains import stack
from lablib.explorers.monitor import kept_and_learned, sides
from lablib.report import export
from lablib.runs import Recorder, Run
from lablib.specs import Mixture, Prepare, Pretrain
from lablib.specs.mixtures import Curriculum

STEPS, WINDOWS, SEQ_LEN = 200, 8, 128
PLAN = Curriculum.of(
    (3000, Mixture(weights={"books": 0.75, "python": 0.25}, max_epochs=9)), (1000, Mixture(weights={"python": 1.0}))
)


def read(run: Recorder) -> None:
    """Rows as the loop writes them of a run that reads exactly as its curriculum says, with losses by domain."""
    recipe = run.recipe
    assert isinstance(recipe, Pretrain) and isinstance(recipe.mixture, Curriculum)
    order = WindowOrder.of(recipe.mixture.scaled(recipe.steps * recipe.step_tokens), SEQ_LEN)
    for step in range(1, recipe.steps + 1):
        taken = {f"tokens.{name}": SEQ_LEN * count for name, count in order.taken(step * WINDOWS).items()}
        run.log(step, "train", **{**made.row(step), **taken})
        if step % 40 == 0:
            losses = {"loss.python": 2 + 1 / step, "loss.books": 4 + 1 / step, "loss.mail": 5.0}
            sides = {"loss_new": 2 + 1 / step, "loss_old": 4 + 1 / step}
            run.log(step, "eval", loss=3.0, **losses, **sides)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("domains")
    data = made.finished(root, Prepare(name="data"), made.prepared)
    card = data.path / "data" / "manifest.json"
    card.write_text(card.read_text().replace('"shards"', '"mixture": {}, "shards"').replace("190000", "19000"))
    return made.finished(root, made.pretrain(STEPS, data=data.data, mixture=PLAN), read)


@pytest.fixture(scope="module")
def view(run: Run) -> View:
    return Monitor(run).view()


def rows(view: View, frame: str) -> list[dict[str, Any]]:
    columns = view.frames[frame]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_the_mixture_as_read_is_the_plan_to_within_a_window(view: View) -> None:
    """Five steps of eight windows an interval; the mixture changes after three quarters of the run."""
    assert [figure.name for figure in view.charts][:3] == ["loss", "domain_loss", "mixture_read"]
    shares = {(row["step"], row["domain"]): row["share"] for row in rows(view, "mixture_read")}
    assert {step for step, _ in shares} == set(range(0, STEPS + 1, 5))
    for (step, name), share in shares.items():
        wanted = {"books": 0.75, "python": 0.25} if step <= 150 else {"books": 0.0, "python": 1.0}
        assert share == pytest.approx(wanted[name], abs=1 / 40)


def test_the_plan_beside_it_has_its_phases(view: View) -> None:
    """Books are planned most over the run (56 %), so they lie at the bottom; the upper bound of the last domain is 1."""
    told = [(row["step"], row["domain"], row["upto"]) for row in rows(view, "mixture_plan")]
    assert told == [(0, "books", 0.75), (150, "books", 0.0), (200, "books", 0.0)]


def test_losses_are_a_row_a_domain_and_step(view: View) -> None:
    """A domain that is only held out comes last; its line is there too."""
    found = rows(view, "domain_loss")
    assert [row["name"] for row in found if row["step"] == 40] == ["books", "python", "mail"]
    for row in found:
        assert row["loss"] == pytest.approx({"books": 4 + 1 / row["step"], "python": 2 + 1 / row["step"], "mail": 5.0}[row["name"]], rel=1e-5)  # fmt: skip


def test_repeats_are_counted_and_told(view: View) -> None:
    """0.4375 of 204,800 tokens are python, of which 19,000 were prepared; of books there is more than is read."""
    (table,) = view.tables
    assert [row[0] for row in table.rows] == ["books", "python"]
    passes = 0.4375 * STEPS * 1024 / 19_000
    assert table.rows[1][1:] == ("43.8 %", "43.8 %", "89.6k", f"{passes:.2f}", f"{passes:.2f}")
    (told,) = (note for note in view.notes if "repeats" in note)
    assert told.startswith("python has been read 4.7 times: beyond 4")


def test_a_warning_comes_before_the_repeats(run: Run, tmp_path: Path) -> None:
    """At three quarters of the run python has been read 2.0 times; the plan says 4.7."""
    root = run.path.parent
    young = made.start(root, run.recipe)
    for row in run.rows()[:150]:
        young.log(row["step"], **{name: value for name, value in row.items() if name not in ("step", "time")})
    (told,) = (note for note in Monitor(Run(young.path)).view().notes if "repeats" in note)
    assert told.startswith("python has been read 2.0 times of 4.7 planned")


def test_they_are_drawn(view: View) -> None:
    """By Vega itself: an area a domain with the plan over it, a line a domain."""
    figures = {figure.name: svg(figure.still(view.frames)) for figure in view.charts}
    assert figures["mixture_read"].count('aria-roledescription="area mark"') == 2
    assert "stroke-dasharray" in figures["mixture_read"]
    assert figures["domain_loss"].count('aria-roledescription="line mark"') == 3


def test_the_report_says_what_the_screen_says(run: Run, view: View) -> None:
    text = export(run).read_text(encoding="utf-8")
    kept = "Held-out loss: new mixture 2.025 → 2.005, old mixture 4.025 → 4.005."
    assert kept in view.notes
    for words in (
        "What was read of each domain",
        "python has been read 4.7 times",
        "/mixture_read",
        "/domain_loss",
        kept,
    ):
        assert words in text, words


def test_a_run_without_domains_has_none_of_it(chain: list[Run]) -> None:
    found = Monitor(chain[1]).view()
    assert not {"domain_loss", "mixture_read", "domains"} & set(found.frames) and not found.tables


@given(st.dictionaries(st.integers(0, 99).map("d{}".format), st.floats(0.01, 1), min_size=1, max_size=20))
def test_whatever_the_number_of_domains_the_stack_is_whole_and_every_label_has_a_colour(weights: dict[str, float]) -> None:  # fmt: skip
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    made = stack(shares, labels(list(shares)))
    assert sum(share for _, share, _ in made) == pytest.approx(1) and len(made) <= DRAWN + 1
    assert [place for _, _, place in made] == list(range(len(made)))


def test_a_held_out_loss_that_is_no_number_breaks_no_screen() -> None:
    rows = [{"loss_new": 4.0, "loss_old": 2.0}, {"loss_new": 3.0, "loss_old": 2.5}, {"loss_new": 3.0, "loss_old": None}]
    assert kept_and_learned(sides(rows)) == ["Held-out loss: new mixture 4.000 → 3.000, old mixture 2.000 → 2.500."]
    assert kept_and_learned(sides(rows[1:])) == kept_and_learned(sides([{"loss": 1.0}, {"loss": 1.0}])) == []
