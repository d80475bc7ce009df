"""The Prepare stage: what it makes, what it reuses, and that nothing breaks it half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lablib.data import PackedDataset, funnel, packages, prepare, shards, tokenizer
from lablib.data.catalogue import CORE
from lablib.data.scale import corpora, edits, sampling
from lablib.runs import Recorder, Run
from lablib.specs import LabError, Mixture, Prepare, Repeats, Scrub


def recipe(texts: Path, **changes: object) -> Prepare:
    return Prepare(**{"corpus": str(texts), "vocab": 400, "heldout": 0.1, **changes})  # type: ignore[arg-type]


def execute(root: Path, wanted: Prepare) -> Recorder:
    run = Recorder.create(root, wanted)
    prepare.prepare(wanted, run)
    return run


def test_makes_both_artefacts_and_a_card(texts: Path, prepared: Path) -> None:
    run = Run.open(prepared)
    assert set(run.artefacts) == {"tokenizer", "data"}
    card = json.loads((prepared / "data" / "manifest.json").read_text())
    rows = {(row["domain"], row["split"]): row for row in card["shards"]}
    for (domain, split), row in rows.items():
        stem = prepared / "data" / "shards" / f"{domain}.{split}"
        ids = np.fromfile(f"{stem}.bin", "<u2")
        assert len(ids) == row["tokens"] and (ids == card["tokenizer"]["separator"]).sum() == row["docs"]
        assert (np.flatnonzero(ids == card["tokenizer"]["separator"]) + 1 == np.load(f"{stem}.idx.npy")).all()
    for domain in ("long", "short"):
        files = list((texts / domain).iterdir())
        both = [rows[domain, split] for split in ("train", "heldout")]
        assert sum(row["docs"] for row in both) == len(files) == card["domains"][domain]["docs"]
        assert sum(row["bytes"] for row in both) == sum(file.stat().st_size for file in files)
    assert card["domains"]["long"]["sources"] == [
        {"source": "long", "licence": "not stated (your own files)", "docs": 60}
    ]
    assert json.loads((prepared / "progress.json").read_text())["done"] == 100


def test_text_cannot_reach_the_reserved_ids(texts: Path, prepared: Path) -> None:
    """The texts are full of ``<|im_end|>`` and ``<think>``; only the separator may come out below 16."""
    assert any("<|im_end|>" in file.read_text() for file in (texts / "long").iterdir())
    ids = np.fromfile(prepared / "data" / "shards" / "long.train.bin", "<u2")
    assert set(ids[ids < 16].tolist()) == {tokenizer.SPECIAL.index(tokenizer.SEPARATOR)}


def test_documents_come_back_as_text(texts: Path, prepared: Path) -> None:
    data, coder = shards.read(prepared / "data", "short", "train", 400), tokenizer.load(prepared / "tokenizer")
    found = {
        coder.decode(data.tokens[s : s + n - 1].tolist(), skip_special_tokens=False)
        for s, n in zip(data.starts, data.lengths, strict=True)
    }
    assert found < {file.read_text() for file in (texts / "short").iterdir()} and len(found) > 90


def test_second_time_reuses_everything(
    texts: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = execute(tmp_path / "runs", recipe(texts))
    for name in ("_train", "_shards"):
        monkeypatch.setattr(prepare, name, lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(prepare.corpora.corpus, "build", lambda *_: pytest.fail("read again"))
    again = execute(tmp_path / "runs", recipe(texts, seed=5, name="other"))
    assert Run.open(first.path).artefacts["data"].sha256 == Run.open(again.path).artefacts["data"].sha256


@pytest.mark.parametrize(
    "change", [{"vocab": 420}, {"heldout": 0.3}, {"max_bytes": 50_000}, {"mixture": Mixture(weights={"short": 1.0})}]
)
def test_every_science_field_makes_other_data(
    texts: Path, prepared: Path, home: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    made = Run.open(execute(tmp_path / "runs", recipe(texts, **change)).path).artefacts["data"].sha256
    assert made != Run.open(prepared).artefacts["data"].sha256


def test_a_changed_file_is_noticed(write_texts: Callable[..., None], home: Path, tmp_path: Path) -> None:
    write_texts(tmp_path / "mine", "notes", 20, 0)
    before = execute(tmp_path / "runs", recipe(tmp_path / "mine"))
    with (tmp_path / "mine" / "notes" / "000.txt").open("a") as file:
        file.write(" more")
    after = execute(tmp_path / "runs", recipe(tmp_path / "mine"))
    cards = [shards.manifest(run.path / "data") for run in (before, after)]
    assert cards[0]["corpus"]["hash"] != cards[1]["corpus"]["hash"]


def test_cap_is_kept_in_proportion(texts: Path, home: Path, tmp_path: Path) -> None:
    card = shards.manifest(execute(tmp_path / "runs", recipe(texts, max_bytes="60 kB")).path / "data")
    used = {d: sum(row["bytes"] for row in card["shards"] if row["domain"] == d) for d in ("long", "short")}
    whole = {d: card["domains"][d]["bytes"] for d in used}
    assert sum(used.values()) <= 60_000
    for domain in used:
        quota = 60_000 * whole[domain] / sum(whole.values())
        assert quota * 0.6 < used[domain] <= quota


def test_a_domain_that_no_evaluation_measures_is_named(
    write_texts: Callable[..., None], home: Path, tmp_path: Path
) -> None:
    """One document is trained on or held out, never both: the run and its card say what to do."""
    write_texts(tmp_path / "mine", "large", 60, 1)
    write_texts(tmp_path / "mine", "tiny", 1, 2)
    run = execute(tmp_path / "runs", recipe(tmp_path / "mine", heldout=0.2))
    (told,) = [event for event in Run.open(run.path).events() if event["kind"] == "not evaluated"]
    assert told["domains"] == ["tiny"] and told["heldout"] == 0.2 and "Raise `heldout`" in told["remedy"]
    assert "absent from evaluation: tiny. Raise `heldout`" in (run.path / "data" / "card.md").read_text()


def test_damaged_cache_is_made_again(texts: Path, home: Path, tmp_path: Path) -> None:
    first = execute(tmp_path / "runs", recipe(texts))
    cached = next((home / "data" / "shards").glob("*/shards/long.train.bin"))
    cached.write_bytes(cached.read_bytes()[:-2] + b"\xff\xff")
    again = execute(tmp_path / "runs", recipe(texts))
    assert Run.open(first.path).artefacts["data"].sha256 == Run.open(again.path).artefacts["data"].sha256


def test_an_unknown_domain_is_named(texts: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"mixture\.weights names poems; corpus .* has long, short"):
        execute(tmp_path / "runs", recipe(texts, mixture=Mixture(weights={"poems": 1.0})))


def test_stop_request_ends_it_and_loses_nothing(texts: Path, home: Path, tmp_path: Path) -> None:
    run = Recorder.create(tmp_path / "runs", recipe(texts))
    run._stop.set()
    prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
    assert Run.open(run.path).artefacts == {} and not (run.path / "data").exists()
    run._stop.clear()
    prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
    assert set(Run.open(run.path).artefacts) == {"tokenizer", "data"}


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        (corpora, "_sum", 1),
        (corpora, "_seen", 1),
        (corpora, "_once", 2),  # the first part has nothing that an earlier one has
        (sampling, "_drawn", 1),
        (edits, "_seen", 1),
        (edits, "_gathered", 1),
        (edits, "_edited", 1),
        (edits, "_settled", 1),
        (funnel, "carry_out", 1),
    ],
)
def test_a_stop_request_is_heeded_inside_each_pass(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, call: int
) -> None:
    """What begins when the request comes does not end."""
    (tmp_path / "mine").mkdir()
    for number in range(4):
        (tmp_path / "mine" / f"{number}.txt").write_text(f"a text that is not the same {number // 2} " * 9)
    asked = Prepare(
        corpus=str(tmp_path / "mine"), vocab=300, heldout=1e-9, repeats=Repeats(), scrub=Scrub(), part_bytes=1
    )
    run = Recorder.create(tmp_path / "runs", asked)
    real, ended = getattr(module, function), list[bool]()

    def begun(*args: Any) -> Any:
        if len(ended) + 1 == call:
            run._stop.set()
        result = real(*args)
        ended.append(True)
        return result

    monkeypatch.setattr(module, function, begun)
    prepare.prepare(asked, run)
    assert run._stop.is_set() and len(ended) == call - 1 and Run.open(run.path).artefacts == {}


def test_each_product_in_the_cache_counts_as_progress(texts: Path, home: Path, tmp_path: Path) -> None:
    run = execute(tmp_path / "runs", recipe(texts))
    kept = [event for event in Run.open(run.path).events() if event["kind"] == "checkpoint"]
    assert [event["at_step"] for event in kept] == [1, 2, 3]
    assert [Path(event["path"]).parent.name for event in kept] == ["corpora", "tokenizers", "shards"]


def test_a_client_that_the_same_ctrl_c_killed_is_no_failure(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Recorder.create(tmp_path / "runs", Prepare())

    def interrupted(*_: object) -> None:
        run._stop.set()
        raise LabError("pip was interrupted")

    monkeypatch.setattr(packages, "run_client", interrupted)
    prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
    assert Run.open(run.path).events()[-1]["kind"] == "stopping"


KILLED = """
import os, sys, time
from pathlib import Path
from lablib.data import {module} as module
from lablib.data.prepare import prepare
from lablib.runs import Recorder

real = module.{function}
def slow(*args, **kwargs):
    real(*args, **kwargs)
    print("here", flush=True)
    time.sleep(60)
module.{function} = slow
run = Recorder(Path(sys.argv[1]))
prepare(run.recipe, run)
"""


@pytest.mark.parametrize(("module", "function"), [("corpus", "build"), ("tokenizer", "save"), ("shards", "tokenise")])
def test_killed_in_the_middle(
    texts: Path, prepared: Path, home: Path, tmp_path: Path, module: str, function: str
) -> None:
    """SIGKILL while a product is half written: the next run makes the same bytes and sweeps the rest away."""
    run = Recorder.create(tmp_path / "runs", recipe(texts))
    code = KILLED.format(module=module, function=function)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert child.stdout is not None and child.stdout.readline().strip() == "here"
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = list((home / "data").glob("*/.*"))
    assert left, "the kill came too late to test anything"
    prepare.prepare(run.recipe, run)  # type: ignore[arg-type]
    assert Run.open(run.path).artefacts["data"].sha256 == Run.open(prepared).artefacts["data"].sha256
    assert list((home / "data").glob("*/.*")) == []


def test_two_at_once_agree(texts: Path, prepared: Path, home: Path, tmp_path: Path) -> None:
    runs = [Recorder.create(tmp_path / "runs", recipe(texts)) for _ in range(2)]
    code = "import sys; from pathlib import Path; from lablib.runs import Recorder; from lablib.data.prepare import prepare; r = Recorder(Path(sys.argv[1])); prepare(r.recipe, r)"
    children = [subprocess.Popen([sys.executable, "-c", code, str(run.path)]) for run in runs]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert {Run.open(run.path).artefacts["data"].sha256 for run in runs} == {
        Run.open(prepared).artefacts["data"].sha256
    }


def test_full_disk_gets_one_message(texts: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "_train", full)
    with pytest.raises(LabError, match=r"disk of .* is full.*LAB_HOME"):
        execute(tmp_path / "runs", recipe(texts))


def test_core_end_to_end(tmp_path: Path) -> None:
    """A cap of 6 MB over the real core corpus, with the tour's vocabulary; uses the machine's own cache."""
    for source in CORE:
        source.fetch()
    begun = time.monotonic()
    run = execute(tmp_path / "runs", Prepare(max_bytes="6 MB", vocab=4096))
    data = PackedDataset(run.path / "data", seq_len=256)
    assert data.domains == ("books", "code", "dialogue", "guides", "reference")
    card = data.manifest
    text, tokens = (sum(row[k] for row in card["shards"]) for k in ("bytes", "tokens"))
    assert 5.5e6 < text <= 6e6 and 3.0 < text / tokens < 3.8, "bytes a token"
    assert sum(data.targets.values()) / data.tokens_available > 0.98
    assert time.monotonic() - begun < 600
