"""Latent attention, hybrids with Mamba and RWKV through the whole trainer: resumed bit for bit, and left as plain model folders.

The layouts of these models are in test_parity_layouts; their initial weights in tests/models/test_seeded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from layouts import MODELS
from tiny import STOP, Job, attempt, curve, new_run, recipe
from transformers import AutoModelForCausalLM

from lablib.runs import Run
from lablib.specs import LabError, Parallelism, Pretrain, Ref
from lablib.train import pretrain
from lablib.train.able import check

KINDS = ("latent", "hybrid", "jamba", "granite", "rwkv")
QUICK = ("latent", "jamba")
MARKED = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
RECURRENT = ("hybrid", "jamba", "granite", "rwkv")
TOKENS = torch.arange(40).reshape(2, 20) * 7 % 300


def wanted(data: Ref, kind: str, **changes: Any) -> Pretrain:
    """Five steps of one of the models, under the conditions that it has."""
    return recipe(data, model=MODELS[kind], document_mask=kind == "latent", **changes)


class Watched:
    """`save_model`, and the logits of what it was given."""

    def __init__(self) -> None:
        """Nothing is saved yet."""
        self.logits = torch.empty(0)

    def __call__(self, model: Any, *rest: Any) -> None:
        """Saves."""
        self.logits = logits(model)
        SAVE(model, *rest)


SAVE = pretrain.save_model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Of made-up tokens, without a cache."""
    found: torch.Tensor = model.eval()(input_ids=TOKENS, use_cache=False).logits
    return found


@pytest.mark.parametrize("kind", MARKED)
def test_a_run_is_resumed_bit_for_bit_and_leaves_the_model_it_trained(data: Ref, root: Path, kind: str) -> None:
    plan, saved = wanted(data, kind), Watched()
    whole, stopped = new_run(root, plan), new_run(root, plan)
    with patch.object(pretrain, "save_model", saved):
        attempt(Job(whole, plan))
        attempt(Job(stopped, plan, signal_after=(3, STOP)))
        assert len(curve(stopped)) == 3
        attempt(Job(stopped, plan))
    assert curve(whole) == curve(stopped) and len(curve(whole)) == 5
    assert curve(whole)[-1][0] < curve(whole)[0][0]
    assert Run.open(stopped).rows("eval")[-1]["loss"] == Run.open(whole).rows("eval")[-1]["loss"]
    loaded = AutoModelForCausalLM.from_pretrained(stopped / "model")
    torch.testing.assert_close(logits(loaded), saved.logits, atol=1e-6, rtol=0)  # weights lie elsewhere in memory
    assert MODELS[kind] == type(MODELS[kind]).from_hf(stopped / "model").replace(max_seq_len=MODELS[kind].max_seq_len)


@pytest.mark.parametrize("kind", RECURRENT)
def test_what_a_recurrence_cannot_do_is_refused(data: Ref, kind: str) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"document_mask": True}, "set document_mask=False"),
        ({"parallelism": Parallelism(tp=2)}, r"parallelism\.tp=2"),
        ({"parallelism": Parallelism(cp=2)}, "set cp=1"),
        ({"parallelism": Parallelism(pp=2)}, "set pp=1"),
    ]
    check(wanted(data, kind))
    for change, remedy in refused:
        with pytest.raises(LabError, match=remedy):
            check(wanted(data, kind).replace(**change))
