"""The export stage: one plain Hugging Face folder in the wanted precision, proved by its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lablib.models.folder import load_tokenizer, save_model
from lablib.models.load import input_model, load_model
from lablib.runs import Recorder
from lablib.specs import Export, LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_PROBE = 32
"""Tokens of the probe whose logits are compared."""


def export_model(recipe: Export, run: Recorder) -> None:
    """Write the model in `recipe.dtype`, load it again, and register it as the artefact "model".

    Raises `LabError` where the input is no model folder, or the written model's logits are not the source's.
    """
    source, target = input_model(run, recipe.model), run.path / "model"
    torch.set_num_threads(recipe.threads)
    model = load_model(source, DTYPES[recipe.dtype]).eval()
    save_model(model, source, target)
    difference = compare(model, load_model(target, DTYPES[recipe.dtype]).eval(), len(load_tokenizer(target)))
    if difference > 0:
        raise LabError(f"{target} does not give the logits of {source} after writing and loading (they differ by {difference:.3g}); the disk may be failing")  # fmt: skip
    whole = compare(model, load_model(source).eval(), len(load_tokenizer(target)))
    run.note(export={"dtype": recipe.dtype, "largest_logit_change_from_fp32": whole})
    run.artefact("model", target, kind="model")


@torch.no_grad()
def compare(one: PreTrainedModel, other: PreTrainedModel, vocab: int) -> float:
    """Largest difference between two models' logits on the same random tokens below `vocab`."""
    tokens = torch.randint(vocab, (1, _PROBE), generator=torch.Generator().manual_seed(0))
    logits = (model(input_ids=tokens.to(model.device), use_cache=False).logits.float() for model in (one, other))
    return float(torch.sub(*logits).abs().max())
