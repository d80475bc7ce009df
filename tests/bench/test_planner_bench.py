"""The bench says what is wrong with a row instead of stopping, prints valid JSON, and notices when the planner is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import planner_truth
import pytest

from bench.planner import __main__ as command
from bench.planner import fields, peers, scores
from bench.planner.rows import Scored, Unplannable, accelerator_of, model_of, read, real, whole
from bench.planner.scores import bands, clopper_pearson, errors, memory
from bench.planner.shapes import shape_of, sizes
from lablib.plan.params import count

HEADER = "id,model,gpu,peak_gib,n_gpus\n"
GOOD = "M1,llama-3-8b,H100-SXM-80GB,40,8\n"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return planner_truth.folder(tmp_path)


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command prints, refusing NaN and Infinity, which no other JSON reader takes."""
    assert command.main([*arguments, "--json"]) == 0

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    made: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    return made


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("M2,llama-3-8b,H100-SXM-80GB,40\n", "4 cells under 5"),
        ("M2,llama-3-8b,H100-SXM-80GB,40,8,9\n", "6 cells under 5"),
        ("M2,llama-3-8b,H100-SXM-80GB,forty,8\n", "peak_gib='forty' is not a number"),
        ("M2,llama-3-8b,H100-SXM-80GB,nan,8\n", "not a finite"),
        ("M2,llama-3-8b,H100-SXM-80GB,-4,8\n", "not a finite"),
        ("M2,llama-3-8b,H100-SXM-80GB,0,8\n", "cannot have been measured"),
        ("M1,llama-3-8b,H100-SXM-80GB,41,8\n", "earlier row"),
        ('M2,"llama-3-8b,H100-SXM-80GB,40,8\n', "cells under 5"),
    ],
)
def test_a_malformed_row_is_named_with_its_line_and_the_others_stay(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "memory.csv"
    file.write_text(HEADER + GOOD + "\n" + line, encoding="utf-8")
    rows, problems = read(file)
    assert [row["id"] for row in rows] == ["M1"]
    assert [problem.line for problem in problems] == [4]
    assert reason in problems[0].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"\n\n", "empty"), (b"id,id\n1,2\n", "twice"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_a_useless_file_is_one_problem(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "memory.csv"
    file.write_bytes(content)
    rows, problems = read(file)
    assert not rows
    assert reason in problems[0].reason


def test_missing_files_and_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path / "memory.csv")[1][0].reason.startswith("cannot be read")
    file = tmp_path / "memory.csv"
    file.write_bytes(b"\xef\xbb\xbf" + b"id,model\nM1,llama-3-8b\n")
    rows, problems = read(file)
    assert rows[0]["id"] == "M1"
    assert "gpu, peak_gib" in problems[0].reason


def test_numbers_in_prose() -> None:
    row = {"seq_len": "<=768 (mean 210)", "global_batch": "0:384 200B:768 400B:1152", "tp": "8.0", "pp": ""}
    assert whole(row, "seq_len") == 768
    assert whole(row, "global_batch") == 1152
    assert (whole(row, "tp"), whole(row, "pp"), whole(row, "cp", 3)) == (8, 1, 3)
    assert real(row, "pp") is None


# ── models and accelerators ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "row", [*planner_truth.MEMORY, *planner_truth.THROUGHPUT, *planner_truth.RUNS], ids=lambda r: r["id"]
)
def test_models_count_what_was_published(row: dict[str, Any]) -> None:
    model = model_of({name: str(value) for name, value in row.items()})
    assert count(model).total == pytest.approx(row["params_total"], rel=0.005)
    assert model.layers == row["n_layers"]


def test_two_matrices_are_told_from_three_by_the_count() -> None:
    """GPT-3 (arXiv 2005.14165 table 2.1) and Llama-1-7B (arXiv 2302.13971) under names that say nothing."""
    gpt = {
        "model": "x",
        "params_total": "174600486912",
        "n_layers": "96",
        "hidden": "12288",
        "n_heads": "96",
        "ffn": "49152",
        "vocab": "51200",
    }
    llama = {
        "model": "x",
        "params_total": "6738149376",
        "n_layers": "32",
        "hidden": "4096",
        "n_heads": "32",
        "ffn": "11008",
        "vocab": "32000",
    }
    assert not model_of(gpt).gated
    assert model_of(gpt).tied_embeddings
    assert model_of(llama).gated
    assert not model_of(llama).tied_embeddings


def test_the_catalogue_goes_before_a_row_unless_they_disagree() -> None:
    agreed = model_of({"model": "qwen3-8b", "params_total": "8190427136"})
    assert agreed.qk_norm
    other = model_of({"model": "qwen3-8b", "params_total": "4000000000"})
    assert count(other).total == pytest.approx(4e9, rel=0.02)


def test_mixtures_find_their_experts() -> None:
    """DeepSeek-V3 (arXiv 2412.19437 section 4.2) under another name, with archs.csv's columns."""
    row = {"model": "y", "params_total": "671025397760", "params_active": "37551276032", "n_layers": "61", "hidden": "7168", "n_heads": "128",
               "n_kv_heads": "128", "ffn": "18432", "vocab": "129280", "n_experts": "256", "top_k": "8"}  # fmt: skip
    arch = {
        "model": "y",
        "moe_ffn": "2048",
        "n_shared": "1",
        "dense_layers": "3",
        "attn": "mla(q1536,kv512,rope64,nope128,v128)",
    }
    made = model_of(row, [arch])
    assert made.mla
    assert made.moe
    assert (made.moe.expert_ffn, made.moe.shared_experts, made.moe.dense_layers) == (2048, 1, 3)
    assert count(made).active == pytest.approx(37551276032, rel=0.02)


def test_a_size_alone_gets_a_typical_shape_that_says_so() -> None:
    model, note = shape_of({"model": "luminous", "params_total": "70000000000", "params_active": "70000000000"})
    assert count(model).total == pytest.approx(70e9, rel=0.02)
    assert "typical shape" in note
    assert sizes("some-30b-a3b") == (30e9, 3e9)
    assert sizes("bloomz-7b1") == (7.1e9, None)
    with pytest.raises(Unplannable, match="neither an architecture nor a size"):
        model_of({"model": "yi-lightning"})


def test_heads_that_do_not_divide_are_mended() -> None:
    made = model_of({"model": "z", "params_total": "1100000000", "n_layers": "22", "hidden": "2048", "n_heads": "32", "n_kv_heads": "5", "ffn": "5632"})  # fmt: skip
    assert made.heads % made.kv_heads == 0


@pytest.mark.parametrize(
    ("name", "key", "gib"),
    [
        ("A100-SXM-80GB", "a100-sxm", 80), ("NVIDIA A100 40GB PCIe", "a100-pcie", 40), ("h100 sxm", "h100-sxm", 80),
        ("RTX4090-24GB", "rtx-4090", 24), ("RTX-A6000-48GB", "rtx-a6000", 48), ("H20-96GB", "h20-sxm", 96),
        ("V100-SXM-16GB", "v100-sxm", 16), ("GB200-186GB", "gb200", 186), ("GB200-NVL72-186GB", "gb200", 186),
        ("24GB", "rtx-4090", 24), ("80GB", "a100-sxm", 80), ("1 GPU", "a100-sxm", 80), ("TPUv5p-95GB", "tpuv5p", 95),
    ],
)  # fmt: skip
def test_accelerators_by_any_spelling(name: str, key: str, gib: float) -> None:
    assert accelerator_of(name).name == key
    assert accelerator_of(name).memory_gib == pytest.approx(gib, rel=0.1)


def test_a_power_cap_is_in_the_cards_watts_and_an_unknown_card_is_refused() -> None:
    full, capped = (accelerator_of(name) for name in ("H100-SXM-80GB", "H100-SXM-96GB(HBM2e,500W)"))
    assert (capped.tdp_w, full.tdp_w) == (500, 700)
    assert capped.bandwidth_gb_s < full.bandwidth_gb_s
    with pytest.raises(Unplannable, match="Cerebras"):
        accelerator_of("Cerebras WSE-3")


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(ratio: float = 1.0) -> list[Scored]:
    return [Scored(f"r{n}", "a" if n < 3 else "b", ratio * 10 * n, 10.0 * n) for n in range(1, 6)]


def test_doubled_predictions_are_a_hundred_percent_off() -> None:
    assert errors(_rows())["median_ape"] == 0
    assert errors(_rows(2.0))["median_ape"] == pytest.approx(100)
    assert errors(_rows(2.0))["bias"] == pytest.approx(2)
    assert errors(_rows(1.15))["within_10"] == 0
    assert errors(_rows(1.15))["within_20"] == 1


def test_verdicts_count_both_ways() -> None:
    made = memory([
        Scored("1", "a", 70, math.nan, kind="oom", fits=True), Scored("2", "a", 90, math.nan, kind="oom", fits=False),
        Scored("3", "b", 70, 70, fits=True), Scored("4", "b", 90, 70, fits=False),
    ])  # fmt: skip
    assert (made["oom_rows"], made["false_fits"], made["false_unfits"], made["false_unfit_share"]) == (2, 1, 1, 0.5)
    assert made["rows"] == 2
    assert made["by_source"]["a"]["false_fits"] == 1


def test_bands_against_hand_counts() -> None:
    made = bands(
        [Scored(f"{n}", "a", 10, 10, low=8, high=12) for n in range(8)] + [Scored("x", "a", 10, 20, low=8, high=12)] * 2
    )
    assert made["band80_coverage"] == 0.8
    assert made["consistent_with_80"]
    assert made["interval_score"] == pytest.approx(0.4)  # width 4 over a figure of 10
    missed = bands([Scored("x", "a", 10, 20, low=8, high=12)])
    assert missed["interval_score"] == pytest.approx((4 + 10 * 8) / 20)
    assert not bands([Scored(f"{n}", "a", 10, 20, low=8, high=12) for n in range(20)])["consistent_with_80"]


def test_clopper_pearson_is_the_published_interval() -> None:
    """8 of 10: 0.4439 to 0.9748 (R's binom.test)."""
    assert clopper_pearson(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert clopper_pearson(0, 5)[0] == 0
    assert clopper_pearson(5, 5)[1] == 1


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_has_what_was_asked(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = _json(capsys, "--truth", str(truth), "--only", "memory,throughput,runs,posttrain")
    assert {"peers", "assumed", "problems", "date", "lab"} <= set(made)
    for field in ("memory", "throughput", "runs"):
        assert made[field]["rows"] >= 3, made["problems"]
        assert made[field]["median_ape"] >= 0
    for field in ("memory", "throughput"):
        assert 0 <= made[field]["within_10"] <= made[field]["within_20"] <= 1
        assert {"rows", "median_ape", "within_10", "within_20"} <= set(next(iter(made[field]["by_source"].values())))
    assert made["memory"]["oom_rows"] == 1
    assert isinstance(made["memory"]["false_fits"], int)
    assert "band80_coverage" in made["runs"]
    assert {"memory", "time"} <= set(made["posttrain"])
    assert made["assumed"]["memory"]["unit"] == "GiB a GPU"


def test_every_sound_row_is_planned(truth: Path) -> None:
    for name in ("memory", "throughput", "runs"):
        field = fields.field_of(name, truth)
        assert not field.unplannable
        assert len(field.scored) == len(field.rows)


def test_a_folder_without_files_gives_nulls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = _json(capsys, "--truth", str(tmp_path), "--only", "memory,throughput,runs,posttrain")
    assert made["memory"]["rows"] == 0
    assert made["memory"]["median_ape"] is None
    assert made["runs"]["band80_coverage"] is None
    assert {problem["file"] for problem in made["problems"]} >= {
        "memory.csv",
        "throughput.csv",
        "runs.csv",
        "posttrain.csv",
    }
    absent = _json(capsys, "--truth", str(tmp_path / "nowhere"), "--only", "memory")
    assert absent["problems"][0]["reason"] == "is not a folder"


def test_malformed_rows_reach_the_report_and_the_rest_is_scored(
    truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = truth / "memory.csv"
    before = _json(capsys, "--truth", str(truth), "--only", "memory", "--no-peers")["memory"]
    broken = ["M9,half a row", file.read_text(encoding="utf-8").splitlines()[1]]
    file.write_text(file.read_text(encoding="utf-8") + "\n".join(broken) + "\n", encoding="utf-8")
    after = _json(capsys, "--truth", str(truth), "--only", "memory", "--no-peers")
    assert {problem["line"] for problem in after["problems"]} == {6, 7}
    assert after["memory"]["median_ape"] == before["median_ape"]
    assert command.main(["--truth", str(truth), "--only", "memory", "--no-peers"]) == 0
    said = capsys.readouterr().out
    assert "left out, malformed: 2" in said
    assert "memory.csv:6" in said


def test_a_planner_that_doubles_is_noticed(truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.planner import throughput

    honest = command.bench(truth, ("throughput",), False)[0]["throughput"]
    score = throughput.score

    def doubled(rows: list[dict[str, str]]) -> Iterator[Scored]:
        return (one._replace(predicted=2 * one.predicted) for one in score(rows))

    monkeypatch.setattr(throughput, "score", doubled)
    planted = command.bench(truth, ("throughput",), False)[0]["throughput"]
    assert planted["bias"] == pytest.approx(2 * honest["bias"], rel=1e-3)
    assert planted["median_ape"] == pytest.approx(100 * (2 * honest["bias"] - 1), abs=30)
    assert planted["within_20"] == 0


def test_a_crash_in_one_row_costs_that_row_only(truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.planner import throughput

    score = throughput.score

    def fragile(rows: list[dict[str, str]]) -> Iterator[Scored]:
        if rows[0]["id"] == "T0001":
            raise ZeroDivisionError("planted")
        return score(rows)

    monkeypatch.setattr(throughput, "score", fragile)
    field = fields.field_of("throughput", truth)
    assert [problem.row for problem in field.unplannable] == ["T0001"]
    assert "ZeroDivisionError: planted" in field.unplannable[0].reason
    assert len(field.scored) == len(field.rows) - 1


def test_a_field_without_its_file_is_reported_missing(truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(fields.importlib, "import_module", gone)
    made, _ = command.bench(truth, ("memory",), False)
    assert "bench.planner.memory" in made["memory"]["missing"]
    assert made["memory"]["median_ape"] is None


def test_frame_has_every_planned_row(truth: Path) -> None:
    made = fields.frame(truth, ("throughput",))
    assert {row["row"] for row in made} == {"T0000", "T0001", "T0002", "T0556"}
    assert {"field", "source", "model", "predicted", "published", "low", "high"} <= set(made[0])


def test_unknown_fields_and_a_missing_folder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--truth", ".", "--only", "money"], []):
        with pytest.raises(SystemExit):
            command.main(arguments)
    assert "--truth DIR is needed" in capsys.readouterr().err


# ── peers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_textbook_by_hand() -> None:
    """Llama-3-8B on 8 GPUs under FSDP: 16 bytes a parameter over 8, 34 bytes a token and feature, fp32 logits."""
    row = {name: str(value) for name, value in planner_truth.MEMORY[0].items()}
    tokens = 2 * 8192
    by_hand = 16 * 8030261248 / 8 + 32 * tokens * 4096 * 34 + 4 * tokens * 128256
    assert peers.textbook(row) == pytest.approx(by_hand / 2**30, rel=1e-3)


def test_constant_rates_by_hand() -> None:
    row = {name: str(value) for name, value in planner_truth.RUNS[0].items()}
    hours = 6 * 13015449600 * 1e12 / (0.30 * 312e12) / 3600
    assert peers.constant_mfu(0.30)(row) == pytest.approx(hours)
    mpt = {name: str(value) for name, value in planner_truth.THROUGHPUT[0].items()}
    assert peers.forty_percent(mpt) == pytest.approx(0.4 * 989e12 / (6 * 64853901312), rel=0.01)


def test_absent_peers_say_so_and_present_ones_are_beside_ours(truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_version", lambda package: "")
    made = peers.live(fields.field_of("memory", truth))
    assert made["llm-analysis"]["status"].startswith("not installed (pip install")
    textbook = made["textbook (ZeRO states + Korthikanti)"]
    assert textbook["rows"] == 3
    assert textbook["median_ape"] > 0
    assert textbook["ours"] >= 0


def test_quotes_are_dated_and_only_for_the_sources_at_hand() -> None:
    made = peers.quoted("memory", ["torchtitan"])
    assert {row["source"] for row in made} == {"all", "torchtitan"}
    assert all(row["date"] for row in made)


def test_plain_makes_valid_json() -> None:
    made = scores.plain({"a": float("nan"), "b": [float("inf"), 1.23456], "c": (True, None, 3)})
    assert made == {"a": None, "b": [None, 1.2346], "c": [True, None, 3]}
    assert made["c"][0] is True
