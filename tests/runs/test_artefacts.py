"""Artefacts, references between runs, and inputs that are frozen by checksum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lablib.runs import Recorder, Run, fingerprint
from lablib.specs import LabError, Prepare


@pytest.fixture
def maker(tmp_path: Path) -> Recorder:
    recorder = Recorder.create(tmp_path, Prepare())
    folder = recorder.folder("data")
    (folder / "a.bin").write_bytes(b"tokens")
    recorder.artefact("data", folder, "dataset")
    return recorder


def test_a_reference_resolves_to_the_very_content_and_is_frozen(tmp_path: Path, maker: Recorder) -> None:
    user = Recorder.create(tmp_path, Prepare())
    ref = Run(maker.path).data
    assert user.input(ref) == maker.path / "data"
    assert Run(user.path).manifest["inputs"] == {str(ref): fingerprint(maker.path / "data")[0]}


def test_content_that_changed_after_registration_is_refused(tmp_path: Path, maker: Recorder) -> None:
    (maker.path / "data" / "a.bin").write_bytes(b"Tokens")
    with pytest.raises(LabError, match="has changed since it was registered"):
        Recorder.create(tmp_path, Prepare()).input(Run(maker.path).data)


def test_a_resumed_run_refuses_an_input_that_was_made_again(tmp_path: Path, maker: Recorder) -> None:
    user = Recorder.create(tmp_path, Prepare())
    user.input(Run(maker.path).data)
    (maker.path / "data" / "a.bin").write_bytes(b"others")
    maker.artefact("data", maker.path / "data", "dataset")
    with pytest.raises(LabError, match="has changed since this run began"):
        user.input(Run(maker.path).data)


def test_what_is_missing_is_named_with_what_there_is(tmp_path: Path, maker: Recorder) -> None:
    with pytest.raises(LabError, match=r"has made no 'model' \(it has \['data'\]"):
        Recorder.create(tmp_path, Prepare()).input(Run(maker.path).model)


def test_nothing_outside_the_run_can_be_registered(tmp_path: Path, maker: Recorder) -> None:
    (tmp_path / "elsewhere").write_text("x")
    with pytest.raises(LabError, match="outside the run folder"):
        maker.artefact("x", tmp_path / "elsewhere")


def test_the_fingerprint_sees_names_and_contents(tmp_path: Path) -> None:
    def made(name: str, text: str) -> str:
        folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / name).write_text(text)
        return fingerprint(folder)[0]

    assert made("a", "x") == made("a", "x")
    assert len({made("a", "x"), made("b", "x"), made("a", "y")}) == 3


def test_the_manifest_names_code_versions_and_hardware_but_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret_value")
    recorder = Recorder.create(tmp_path, Prepare(seed=7))
    with recorder.working():
        recorder.note(checked=True)
    manifest = Run(recorder.path).manifest
    assert manifest["seed"] == 7 and manifest["versions"]["numpy"] and manifest["hardware"]["cores"]
    assert manifest["notes"] == {"checked": True}
    everything = "".join(file.read_text() for file in recorder.path.rglob("*") if file.is_file())
    assert "planted_secret" not in everything


def test_every_document_is_plain_json(maker: Recorder) -> None:
    for file in maker.path.rglob("*.json"):
        json.loads(file.read_text())
