"""`lab data`: where documents went, and under which licences those that stayed are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.__main__ import main
from lablib.data.prepare import prepare
from lablib.runs import Recorder
from lablib.specs import Clean, Dedup, Prepare


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
