"""The plan of data preparation: hand arithmetic, published funnels, and what a recipe's estimate makes of its steps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.plan import estimate
from lablib.plan.corpora import held
from lablib.plan.data_rates import PAGES, RATES
from lablib.plan.preparing import BYTES_PER_TOKEN, JSON_LINES, SIGNATURES, DataPlan, keeps, plan_data
from lablib.specs import Accelerator, Cluster, LabError, Prepare


def test_a_source_that_needs_no_filter_by_hand() -> None:
    """15 T tokens of 4.3 bytes go through every step at its rate."""
    made = plan_data(15e12, cores=2000, usd_per_core_hour=0.05, keep_everything=True)
    size = 15e12 * BYTES_PER_TOKEN.mid
    hours = sum(size / 1e6 / rate.mb_per_second / 3600 for rate in RATES.values())
    assert made.core_hours.mid == pytest.approx(hours) and made.dollars.mid == pytest.approx(0.05 * hours)
    assert made.days.mid == pytest.approx(hours / 0.85 / 2000 / 24)
    assert made.disk.mid == pytest.approx(4 * size * JSON_LINES + size * SIGNATURES + 15e12 * 4)
    assert all(one.bytes_in == one.bytes_out for one in made.steps)


def test_a_price_of_nothing_is_given_not_guessed() -> None:
    for price, source in ((0.0, "given"), (0.05, "given"), (None, "lablib/plan/preparing.py, a guess")):
        (told,) = [one.source for one in plan_data(1e12, usd_per_core_hour=price).account if one.name == "dollars"]
        assert told == source


def test_keep_rates_are_those_of_the_published_funnels() -> None:
    """Olmo 3 report §3.4.1 states -84.6 %, -67 % and -23 %; FineWeb 36 → 20 T; RedPajama-V2 100 → 30 → 20.8 B."""
    found = {name: one.share for name, one in keeps().items()}
    assert found["quality"].low == pytest.approx(1 - 0.846, abs=5e-4) and found["quality"].high == pytest.approx(0.3)
    assert found["read"].low == pytest.approx(1 - 0.67, abs=5e-3) and found["read"].high == pytest.approx(20.8 / 30)
    assert found["near-duplicates"].high == pytest.approx(1 - 0.234, abs=5e-3)
    assert found["near-duplicates"].low == pytest.approx(20 / 36)


def test_raw_text_of_fifteen_trillion_tokens_is_of_the_size_of_the_pools() -> None:
    """DCLM-Pool's 240 T tokens and Olmo 3's 252.6 B documents are what such funnels begin with."""
    first = plan_data(15e12).steps[0].bytes_in
    assert 240e12 * 4.3 * 0.3 < first.mid < 240e12 * 4.3 * 2


@settings(max_examples=20, deadline=None)
@given(st.floats(1e6, 1e14), st.integers(1, 10**6))
def test_it_is_linear_and_every_band_rises(tokens: float, cores: int) -> None:
    made, double = plan_data(tokens, cores), plan_data(2 * tokens, cores)
    for one, other in ((made.core_hours, double.core_hours), (made.disk, double.disk), (made.dollars, double.dollars)):
        assert one.low < one.mid < one.high and math.isclose(2 * one.mid, other.mid)
    for before, after in zip(made.steps, made.steps[1:], strict=False):
        assert before.bytes_out == after.bytes_in and before.bytes_out.mid <= before.bytes_in.mid


def test_every_number_has_a_source_and_survives_json() -> None:
    made = plan_data(1e12)
    assert DataPlan(**json.loads(made.to_json())) == made
    assert all(entry.source for entry in made.account) and "bench.data.scale" in made.explain()
    with pytest.raises(LabError, match="cores=0"):
        plan_data(1e12, cores=0)


def test_a_recipe_is_priced_by_its_steps_and_tasks() -> None:
    """Each step that is asked for costs its share; four tasks take a quarter of the time, and money is one task's own."""
    here = Cluster(accelerator="h100-sxm", nodes=1, gpus_per_node=1)
    plain = estimate(Prepare(), here)
    steps = estimate(Prepare(clean="gopher", dedup={}, decontaminate={}), here)  # type: ignore[arg-type]
    assert set(plain.step_parts) == {"text"}
    assert steps.step_parts["quality"] == pytest.approx(59e6 / (RATES["quality"].mb_per_second * 1e6))
    assert set(steps.step_parts) == {"text", "quality", "near-duplicates", "decontamination"}
    assert estimate(Prepare(tasks=4), here).step_seconds == pytest.approx(plain.step_seconds / 4)
    assert "MB a CPU-second" in steps.explain()
    assert estimate(Prepare(tasks=4, threads=2), here).step_seconds == pytest.approx(plain.step_seconds / 8)


def test_processes_beyond_a_cpus_cores_gain_nothing() -> None:
    cpu = Accelerator(name="known", kind="cpu", memory_gib=64, bandwidth_gb_s=50, measured_tflops={"fp32": 0.1})
    here = Cluster(accelerator=cpu, gpus_per_node=2)
    plain = estimate(Prepare(), here)
    for threads, gain in ((2, 2), (16, 2)):
        assert estimate(Prepare(threads=threads), here).step_seconds == pytest.approx(plain.step_seconds / gain)
    edits = Prepare(repeats={"unit": "passage"}, scrub={}, clean={"max_profanity": 0.1}, threads=2)  # type: ignore[arg-type]
    edited = estimate(edits, here).step_parts
    for name, rate in (("repeated-passages", 4.0), ("personal-data", 8.5), ("profanity", 25)):
        assert edited[name] == pytest.approx(59 / rate / 2)


def test_edits_and_extraction_are_priced_where_they_are_asked_for() -> None:
    """By hand at 10 B tokens: 43 GB of text through 25 MB/s is 0.48 core-hours more, of pages that it is 3.7 % of, 13."""
    plain, size = plan_data(1e10, cores=100, keep_everything=True), 1e10 * BYTES_PER_TOKEN.mid / 1e6
    for name, rate in (("html", 25 * 0.037), ("profanity", 25), ("repeated-lines", 3.5), ("repeated-sentences", 4.5), ("repeated-spans", 4.7), ("repeated-passages", 4.0), ("personal-data", 8.5)):  # fmt: skip
        made, hours = plan_data(1e10, cores=100, keep_everything=True, also=(name,)), size / rate / 3600
        assert made.core_hours.mid - plain.core_hours.mid == pytest.approx(hours)
        assert made.days.mid - plain.days.mid == pytest.approx(hours / 0.85 / 100 / 24)
        assert f"{name}.core_hours" in made.explain() and "--mb 3" in made.explain()
        written = size * 1e6 * JSON_LINES if name.startswith(("repeated", "personal")) else 0
        assert made.disk.mid - plain.disk.mid == pytest.approx(written)


def test_extras_stand_in_the_order_of_the_funnel_and_only_known_ones() -> None:
    made = plan_data(1e9, also=("personal-data", "html", "repeated-passages", "profanity"))
    assert [one.name for one in made.steps] == ["html", "read", "quality", "profanity", "near-duplicates", "repeated-passages", "decontamination", "personal-data", "tokenise"]  # fmt: skip
    for before, after in zip(made.steps, made.steps[1:], strict=False):
        assert before.bytes_out == after.bytes_in
    passages = made.steps[5]
    assert passages.bytes_out.mid / passages.bytes_in.mid == pytest.approx(0.86), "Olmo 3 states -14 % of the bytes"
    with pytest.raises(LabError, match=r"also=ocr.*html, profanity"):
        plan_data(1e9, also=("ocr",))


def test_bytes_beyond_a_petabyte_are_told_in_petabytes() -> None:
    shown = plan_data(100e12).headline()
    assert "PB" in shown["disk"] and "e+" not in " ".join(shown.values())


def test_text_of_pages_is_that_of_dclm_on_common_crawl() -> None:
    """200 billion documents of 240 T tokens; pages of three crawls, as they were announced."""
    document = 240e12 * BYTES_PER_TOKEN.mid / 200e9
    pages = [tebibytes * 2**40 / count for tebibytes, count in ((468, 2.61e9), (400, 3.15e9), (300, 3.65e9))]
    assert [document / page for page in pages] == pytest.approx([PAGES.low, PAGES.mid, PAGES.high], rel=0.02)


def test_extraction_is_priced_where_the_corpus_is_warc(tmp_path: Path) -> None:
    """By hand: 25 MB of pages are a second of a core, their text 3.7 %; text beside them costs no extraction."""
    here = Cluster(accelerator="h100-sxm", nodes=1, gpus_per_node=1)
    for name, size in (("a.warc", 25_000_000), ("b.jsonl", 1_000_000), ("c.wet", 500_000)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    plain, tasks = (estimate(Prepare(corpus=str(tmp_path), tasks=n), here) for n in (1, 4))
    assert plain.step_parts["html"] == pytest.approx(1) and tasks.step_parts["html"] == pytest.approx(0.25)
    assert plain.step_parts["text"] / estimate(Prepare(), here).step_parts["text"] == pytest.approx(
        (25 * 0.037 + 1.5) / 59
    )
    assert "bytes of pages" in plain.explain() and any("25MB of pages" in one for one in plain.warnings)
    capped = estimate(Prepare(corpus=str(tmp_path), max_bytes="1 MB"), here).step_parts
    assert capped["html"] == plain.step_parts["html"] and capped["text"] < plain.step_parts["text"]
    assert "html" not in estimate(Prepare(corpus=str(tmp_path / "b.jsonl")), here).step_parts


def test_compressed_files_are_counted_as_what_they_unpack_to(tmp_path: Path) -> None:
    for name in ("crawl.WARC.gz", "rows.jsonl.zst", "code.tgz", "rows.jsonl"):
        (tmp_path / name).write_bytes(bytes(1000))
    warc, rows, code, plain = (
        held(Prepare(corpus=str(tmp_path / name)))
        for name in ("crawl.WARC.gz", "rows.jsonl.zst", "code.tgz", "rows.jsonl")
    )
    assert warc.pages == 4600 and warc.text == pytest.approx(170.2)
    assert rows == code == (2700, 0, ()) and plain == (1000, 0, ())
    assert held(Prepare(corpus=str(tmp_path / "rows.*"))).text == 2700 + 1000
    both = held(Prepare(corpus=(str(tmp_path), "hf:a/b", "core")))
    assert both.text == pytest.approx(170.2 + 5400 + 1000 + 1e9 + 59e6) and len(both.assumed) == 2


def test_own_tests_take_their_time_of_their_own_domain_alone(tmp_path: Path) -> None:
    """A quarter of the bytes; all of them where the folder does not tell."""
    for name, size in (("code", 25_000), ("prose", 75_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(b"x" * size)
    here = Cluster(accelerator="h100-sxm", nodes=1, gpus_per_node=1)

    def seconds(*domains: str) -> float:
        recipe = Prepare(corpus=str(tmp_path), verify={"domains": domains}, threads=1)  # type: ignore[arg-type]
        return estimate(recipe, here).step_parts["own-tests"]

    assert seconds("code") == pytest.approx(25_000 / 0.025e6) == seconds("other") / 4
