"""Held-out loss and bits per byte against a direct count, and what the meter reports."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from tiny import MODEL, Job, attempt, new_run, prepare_data, recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from lablib.data import PackedDataset
from lablib.models.build import build_model
from lablib.runs import Run
from lablib.specs import Accelerator, Cluster, LabError, Mixture, Pretrain
from lablib.train.meter import Meter
from lablib.train.source import token_bytes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, Pretrain]:
    """A run, the run that prepared its data, and its recipe."""
    root = tmp_path_factory.mktemp("heldout")
    data = prepare_data(root)
    wanted = recipe(data, eval_tokens=1_000_000)
    path = new_run(root, wanted)
    attempt(Job(path, wanted))
    return Run.open(path), Run.open(root / data.run), wanted


@torch.no_grad()
def test_bits_per_byte_by_a_direct_count(trained: tuple[Run, Run, Pretrain]) -> None:
    """Each held-out document alone, its text's own UTF-8 length, one forward pass a document."""
    run, prepared, wanted = trained
    model = AutoModelForCausalLM.from_pretrained(run.artefact_path("model"))
    tokenizer = AutoTokenizer.from_pretrained(prepared.artefact_path("tokenizer"))
    windows = PackedDataset(prepared.artefact_path("data"), Mixture(), wanted.seq_len, "heldout", wanted.seed)
    count = windows.tokens_available // wanted.seq_len
    nats = size = targets = 0.0
    for window in (windows[i] for i in range(count)):
        for number in range(int(window.documents.max()) + 1):
            ids = torch.from_numpy(window.tokens[window.documents == number])
            if len(ids) > 1:
                chances = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
                nats -= float(chances.gather(1, ids[1:, None]).sum())
                size += len(tokenizer.decode(ids[1:], skip_special_tokens=True).encode())
                targets += len(ids) - 1
    found = run.rows("eval")[-1]
    assert found["loss"] == pytest.approx(nats / targets, abs=1e-6)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, abs=1e-6)


def test_token_bytes_count_utf8(trained: tuple[Run, Run, Pretrain]) -> None:
    folder = trained[1].artefact_path("tokenizer")
    tokenizer, lengths = AutoTokenizer.from_pretrained(folder), token_bytes(folder, MODEL.vocab)
    for text in ("plain words", "Ünïcödé — 漢字 🙂", " \n\t"):
        assert int(lengths[tokenizer(text, add_special_tokens=False).input_ids].sum()) == len(text.encode())
    assert int(lengths[tokenizer.eos_token_id]) == 0


def test_metrics_of_a_step(trained: tuple[Run, Run, Pretrain]) -> None:
    rows = trained[0].rows()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["tokens"] for row in rows] == [256, 512, 768, 1024, 1280]
    assert all(row["tokens_per_second"] == pytest.approx(256 / row["step_seconds"]) for row in rows)
    assert all(row["memory_gib"] > 0 and "mfu" not in row for row in rows)


def test_mfu_only_with_a_known_peak(trained: tuple[Run, Run, Pretrain]) -> None:
    machine = Accelerator(name="known", kind="cpu", memory_gib=4, bandwidth_gb_s=10, peak_tflops={"fp32": 100.0})
    wanted, root = trained[2], trained[0].path.parent
    path = new_run(root, wanted)
    Cluster(accelerator=machine, gpus_per_node=1).save(path / "cluster.json")
    attempt(Job(path, wanted))
    assert all(0 < row["mfu"] < 1 for row in Run.open(path).rows())


def test_mfu_above_one_is_an_error() -> None:
    meter = Meter(tokens=1, device=torch.device("cpu"), flops=1e30, peak=1e12)
    meter.start()
    meter.stop()
    with pytest.raises(LabError, match="peak_tflops"):
        meter.report()


def test_waiting_for_data_and_the_tokens_for_the_model_are_told(trained: tuple[Run, Run, Pretrain]) -> None:
    rows = trained[0].rows()
    assert all(0 < row["data_wait"] < 1 for row in rows)
    parameters = sum(weight.numel() for weight in build_model(trained[2].model, 0).parameters())
    assert rows[-1]["chinchilla"] == pytest.approx(rows[-1]["tokens"] / (20 * parameters))


def test_log_every_averages_and_keeps_the_last_step(trained: tuple[Run, Run, Pretrain]) -> None:
    wanted = trained[2].replace(log_every=2)
    path = new_run(trained[0].path.parent, wanted)
    attempt(Job(path, wanted))
    assert [row["step"] for row in Run.open(path).rows()] == [2, 4, 5]


def test_a_corpus_is_prepared_inside_the_run(
    trained: tuple[Run, Run, Pretrain], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained[0].path.parent
    monkeypatch.setitem(os.environ, "LAB_HOME", str(root / "home"))
    wanted = trained[2].replace(data=str(root / "made.jsonl"), tokens=256)
    path = new_run(root, wanted)
    attempt(Job(path, wanted))
    assert set(Run.open(path).artefacts) == {"data", "tokenizer", "model"}


def test_model_folder_has_the_very_tokenizer(trained: tuple[Run, Run, Pretrain]) -> None:
    made, source = trained[0].artefact_path("model"), trained[1].artefact_path("tokenizer")
    assert (made / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert not list(Path(made).glob("*.bin"))


def test_too_small_a_vocabulary_is_refused(trained: tuple[Run, Run, Pretrain]) -> None:
    wanted = trained[2].replace(model=MODEL.replace(vocab=280))
    with pytest.raises(LabError, match=r"model.vocab=280.*300"):
        attempt(Job(new_run(trained[0].path.parent, wanted), wanted))


def test_too_many_passes_are_refused(trained: tuple[Run, Run, Pretrain]) -> None:
    wanted = trained[2].replace(tokens="10M")
    with pytest.raises(LabError, match="max_epochs"):
        attempt(Job(new_run(trained[0].path.parent, wanted), wanted))
