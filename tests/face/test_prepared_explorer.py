"""The screens of a data run: its counts are the run's, every sample is on some page, and text from documents is only shown."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from lablib.charts import svg
from lablib.data import provenance
from lablib.data.prepare import prepare
from lablib.data.tasks import split_items
from lablib.explorers import DataFlow, DataSamples, FunnelPlan
from lablib.explorers.funnel import PUBLISHED
from lablib.runs import Recorder, Run
from lablib.specs import Clean, Decontaminate, Dedup, LabError, Prepare, Scrub, Task
from widgets import explore

TASK = Task(name="siblings", generator="aiw", params={"task_type_weights": [1.0, 0.0, 0.0], "max_entities": 6}, train=20, test=5)  # fmt: skip
WORDS = [
    "the",
    "of",
    "and",
    "river",
    "house",
    "made",
    "of",
    "stone",
    "with",
    "a",
    "long",
    "road",
    "that",
    "be",
    "here",
    "to",
    "see",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A data run over a folder of thirty texts, of which some go for each reason."""
    base = tmp_path_factory.mktemp("prepared")
    texts = base / "texts"
    texts.mkdir()
    for number in range(30):
        rng = random.Random(number)
        (texts / f"{number}.txt").write_text(" ".join(rng.choices(WORDS, k=20 if number < 8 else 120)) + f" p{number}@example.org")  # fmt: skip
    (texts / "copy.txt").write_text((texts / "20.txt").read_text() + " again")
    (texts / "leak.txt").write_text((texts / "21.txt").read_text()[::-1] + " " + split_items(TASK, "test")[0].question)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(base / "home"))
        recipe = Prepare(corpus=str(texts), vocab=300, heldout=0.2, clean=Clean(min_words=50), dedup=Dedup(), decontaminate=Decontaminate(benchmarks=(TASK, "mmlu")), scrub=Scrub())  # fmt: skip
        recorder = Recorder.create(base / "runs", recipe)
        prepare(recipe, recorder)
        yield Run(recorder.path)


def test_the_funnel_of_a_run_is_its_own_counts(run: Run) -> None:
    view = DataFlow(run=str(run.path)).view()
    own = [share for share, name in zip(view.frames["funnel"]["share"], view.frames["funnel"]["funnel"], strict=True) if name == "this run"]  # fmt: skip
    assert own == pytest.approx([1, 1, 24 / 32, 23 / 32, 22 / 32, 22 / 32, 22 / 32], rel=1e-4)
    assert view.headlines[0].value == "68.8 %" and view.headlines[2].value == "22"
    named = {table.title: table for table in view.tables}
    assert [row[1] for row in named["Decontamination"].rows] == ["present", "missing"]
    assert len(named["Rights"].rows) == 12 and named["Rights"].caption.startswith("10 more rows")
    for unit in ("bytes", "tokens"):
        other = DataFlow(run=str(run.path), counted=unit, published=PUBLISHED[-1]).view()
        assert (
            other.frames["funnel"]["share"][0] == 1
            and other.frames["funnel"]["share"] != view.frames["funnel"]["share"]
        )
    assert svg(view.charts[0].still(view.frames)).startswith("<svg")


def test_rights_are_told_by_origin_not_by_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a file, of a data set of the hub and of a host of the web each come together."""
    sources = ("mine.jsonl#1", "mine.jsonl#2", "hf:a/b/train#1", "hf:a/c/train#1", "https://x.example/1", "https://y.example/1")  # fmt: skip
    rows = [{"source": source, "licence": "MIT", "domain": "d"} for source in sources]
    monkeypatch.setattr(provenance, "documents", lambda folder: iter(rows))
    told = {table.title: table for table in DataFlow(run=str(run.path)).view().tables}["Rights"].rows
    wanted = {"mine.jsonl": "2", "hf:a/b": "1", "hf:a/c": "1", "https://x.example": "1", "https://y.example": "1"}
    assert {row[0]: row[3] for row in told} == wanted


def test_every_sample_is_on_some_page(run: Run) -> None:
    pages = [DataSamples(run=str(run.path), page=page).view().tables[0].rows for page in (1, 2, 3)]
    assert [len(rows) for rows in pages] == [6, 4, 4], "eight short ones, a copy and a leak; past the end the last page"
    reasons = {row[0].partition(" [")[0] for rows in pages for row in rows}
    assert reasons == {"gopher: too few words", "near-duplicate", "siblings"}
    (near,) = DataSamples(run=str(run.path), step="near-duplicates").view().tables[0].rows
    assert near[1].endswith(".txt")
    changed = DataSamples(run=str(run.path), kind="changed").view().tables[0].rows
    assert "@example" in changed[0][1] and "[EMAIL]" in changed[0][2]
    item = DataSamples(run=str(run.path), kind="test items").view().tables[0].rows[0]
    assert item[0].startswith("siblings") and "»" in item[2]
    assert explore(DataSamples(run=str(run.path))).recipe == run.recipe


def test_thresholds_move_on_what_a_run_has_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signals are there; with no text read again the screen drops what the run dropped, and less when loosened."""
    monkeypatch.setenv("LAB_HOME", str(run.path.parents[1] / "home"))
    plan = FunnelPlan.of(run).replace(preset="gopher", max_top_2gram=1, max_duplicate_5gram=1)
    assert plan.min_words == 50
    table = plan.view().tables[1]
    assert any("@example.org" in row[0] or " " in row[0] for row in table.rows), "texts, not hashes"
    kept = [plan.replace(min_words=least).view().headlines[0].note for least in (0, 1000)]
    assert kept[0] != kept[1] and kept[1].startswith("0 of 32")
    with pytest.raises(LabError, match="clean="):
        FunnelPlan.of(Run(Recorder.create(run.path.parent, Prepare()).path))
