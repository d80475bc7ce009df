"""Averages of models and checkpoints against plain sums over whole state dicts, and models that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lablib.models import merge
from lablib.models.build import build_model
from lablib.models.merge import Sources, average
from lablib.runs import Recorder, Run, RunState
from lablib.specs import LabError, Merge, ModelSpec, MoE

DENSE = ModelSpec(family="qwen3", layers=2, hidden=32, heads=2, kv_heads=1, head_dim=16, ffn=48, vocab=99)
SHAPES = {
    "dense": DENSE,
    "tied": DENSE.replace(tied_embeddings=True),
    "experts": ModelSpec(family="qwen3_moe", layers=2, hidden=32, heads=2, head_dim=16, ffn=48, vocab=99,
                         moe=MoE(experts=4, top_k=2, expert_ffn=24)),
}  # fmt: skip
WEIGHTS = (0.5, 0.2, 0.3)
TOKENS = torch.arange(90).view(2, 45)


def written(root: Path, spec: ModelSpec, count: int = 3) -> tuple[Path, ...]:
    for seed in range(count):
        build_model(spec, seed).save_pretrained(root / str(seed))
    return tuple(root / str(seed) for seed in range(count))


def wanted(folders: tuple[Path, ...], weights: tuple[float, ...]) -> Any:
    """Whole models in memory, summed parameter by parameter."""
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    with torch.no_grad():
        for parameters in zip(*(model.parameters() for model in models), strict=True):
            parameters[-1].copy_(sum(w * p.double() for w, p in zip(weights, parameters, strict=True)))
    return models[-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_of_models_is_the_sum_by_hand(tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over files of 8 kB at most, so that there are many; weights that lie elsewhere in memory may be added in another order."""
    monkeypatch.setattr(merge, "FILE_BYTES", 8192)
    folders = written(tmp_path, SHAPES[shape])
    made = average(Sources(folders, WEIGHTS), folders[-1], tmp_path / "mean")
    assert len(list(made.glob("*.safetensors"))) > 3
    model, told = AutoModelForCausalLM.from_pretrained(made, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    logits, same = (one(input_ids=TOKENS, use_cache=False).logits for one in (model, wanted(folders, WEIGHTS)))
    torch.testing.assert_close(logits, same, rtol=0, atol=1e-6)


def test_a_mean_of_one_model_alone_is_that_model(tmp_path: Path) -> None:
    folders = written(tmp_path, DENSE, 2)
    made = average(Sources(folders, (1.0, 0.0)), folders[-1], tmp_path / "mean")
    for name, weight in AutoModelForCausalLM.from_pretrained(folders[0]).state_dict().items():
        assert torch.equal(weight, AutoModelForCausalLM.from_pretrained(made).state_dict()[name]), name


@pytest.mark.parametrize("change", [{"ffn": 64}, {"layers": 3}, {"tied_embeddings": True}])
def test_other_shapes_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    written(tmp_path, DENSE, 1)
    build_model(DENSE.replace(**change), 0).save_pretrained(tmp_path / "other")
    with pytest.raises(LabError, match="merge models of one shape"):
        average(Sources((tmp_path / "0", tmp_path / "other"), (0.5, 0.5)), tmp_path / "0", tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    folders = written(tmp_path, DENSE, 2)
    for number, folder in enumerate(folders):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": number}, "merges": []}}))
    with pytest.raises(LabError, match="different tokenizers"):
        average(Sources(folders, (0.5, 0.5)), folders[-1], tmp_path / "mean")


def test_what_lies_beside_the_weights_is_no_model(tmp_path: Path) -> None:
    """A downloaded folder has a cache in it, and may have the same weights in other formats."""
    folders = written(tmp_path, DENSE, 2)
    (folders[-1] / ".cache").mkdir()
    (folders[-1] / "pytorch_model.bin").write_bytes(b"old")
    made = average(Sources(folders, (0.5, 0.5)), folders[-1], tmp_path / "mean")
    assert {file.suffix for file in made.iterdir()} == {".json", ".safetensors"}


def test_a_merge_that_is_asked_to_stop_leaves_nothing_and_begins_again(tmp_path: Path) -> None:
    folders = written(tmp_path, DENSE, 2)
    wanted = Merge(models=tuple(map(str, folders)))
    run = Recorder.create(tmp_path / "runs", wanted)
    seen: list[str] = []

    def read(self: merge.Files, name: str, then: Any = merge.Files.read) -> torch.Tensor:
        seen.append(name)
        run.request_stop()
        return then(self, name)

    with pytest.MonkeyPatch.context() as patch, run.working():
        patch.setattr(merge.Files, "read", read)
        merge.merge(wanted, run)
    stopped = Run.open(run.path)
    assert stopped.state == RunState.STOPPED and not stopped.artefacts and len(seen) == 2
    assert not list(run.path.glob("*model*"))
    again = Recorder(run.path)
    with again.working():
        merge.merge(wanted, again)
    assert Run.open(run.path).state == RunState.COMPLETED
    weights = (AutoModelForCausalLM.from_pretrained(each).lm_head.weight for each in (*folders, run.path / "model"))
    one, other, mean = weights
    torch.testing.assert_close(mean, (one + other) / 2)
