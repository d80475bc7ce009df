"""Where a run that names a corpus gets its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from lablib.data import prepare
from lablib.runs import Recorder, Run
from lablib.specs import ModelSpec, Parallelism, Pretrain
from lablib.train import source


def test_a_death_between_the_data_and_its_registration_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    (tmp_path / "texts").mkdir()
    for number in range(9):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"a text of its own, number {number} of all these. " * 9)
    model = ModelSpec(family="qwen3", layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=300)
    recipe = Pretrain(
        model=model, data=str(tmp_path / "texts"), tokens=64, seq_len=16, batch_tokens=16,
        parallelism=Parallelism(micro_batch_size=1),
    )  # fmt: skip
    run = Recorder.create(tmp_path / "runs", recipe)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_describe", lambda *_: (_ for _ in ()).throw(SystemExit("killed")))
        with pytest.raises(SystemExit, match="killed"):
            source._find(recipe, run)
    assert (run.path / "data" / "manifest.json").is_file() and not Run(run.path).artefacts
    source._find(recipe, run)
    assert set(Run(run.path).artefacts) == {"data", "tokenizer"} and (run.path / "data" / "card.md").is_file()
    before = (run.path / "data").stat().st_mtime_ns
    source._find(recipe, run)
    assert (run.path / "data").stat().st_mtime_ns == before, "what is registered is not made again"
