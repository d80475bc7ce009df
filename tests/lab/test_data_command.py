"""`lab data`: where documents went, and under which licences those that stayed are."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lab.__main__ import main
from lablib.data.prepare import prepare
from lablib.data.shards import manifest
from lablib.runs import Recorder
from lablib.specs import Clean, Dedup, Prepare, Scrub


def test_the_way_of_documents_can_be_asked(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"text": f"{number} " + "the quick brown fox and that of the lazy dog " * (1 + number % 20)}
        for number in range(40)
    ]
    corpus = tmp_path / "rows.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Prepare(corpus=str(corpus), vocab=300, heldout=0.2, clean=Clean(min_words=50), dedup=Dedup(threshold=0.9))
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    where = str(run.path)
    assert main(["data", "funnel", where]) == 0
    said = capsys.readouterr().out
    assert "quality" in said and "near-duplicates" in said and "tokens" in said
    assert main(["data", "rights", where, "--json"]) == 0
    kept = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert kept and all({"source", "licence", "sha256", "domain", "split"} <= set(row) for row in kept)
    assert main(["data", "rights", where, "--licence", "no-such-licence"]) == 2
    assert "leave --licence" in capsys.readouterr().err
    assert main(["data", "dropped", where, "--step", "quality", "--json"]) == 0
    gone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert gone and not {row["sha256"] for row in gone} & {row["sha256"] for row in kept}


def test_tokens_and_edits_are_told(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one domain the estimate of the last step before tokenising is the count itself; what changed is shown twice."""
    corpus = tmp_path / "rows.jsonl"
    words = ["the", "quick", "brown", "fox", "and", "that", "of", "lazy", "dog"]
    texts = [
        " ".join(random.Random(number).choices(words, k=60)) + f" ask p{number}@example.org" for number in range(30)
    ]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, "too short"]))
    recipe = Prepare(corpus=str(corpus), vocab=300, heldout=0.2, clean=Clean(min_stop_words=1), scrub=Scrub())
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    assert main(["data", "funnel", str(run.path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == ["reading", "quality", "personal data", "tokenised"]
    *_, before, last = rows
    card = manifest(run.path / "data")
    assert last["tokens_out"] == sum(shard["tokens"] for shard in card["shards"])
    assert before["tokens_out"] == pytest.approx(last["tokens_out"]) and before["tokens_in"] > before["tokens_out"]
    assert before["count"]["docs_changed"] == last["count"]["docs_out"] == 30
    assert main(["data", "changed", str(run.path), "--step", "personal"]) == 0
    assert "[EMAIL]" in capsys.readouterr().out
    assert main(["data", "changed", str(run.path), "--step", "quality"]) == 2
