"""The part that all post-training stages share: begin or resume, train, merge an adapter, write the model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from lablib.models.chat import prepare_chat
from lablib.models.load import input_model, load_pair, save_pair
from lablib.posttrain import settings
from lablib.posttrain.callback import RunCallback, last_checkpoint
from lablib.runs import Recorder
from lablib.specs import LabError
from lablib.specs.recipe import LoRA
from lablib.specs.recipes import PostTrain

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, Trainer

MERGE_TOLERANCE = 1e-3
"""Largest change of a logit, relative to the largest logit, that merging an adapter may make in fp32."""


def begin(recipe: PostTrain, run: Recorder) -> tuple[PreTrainedModel, Any]:
    """(model in fp32, tokenizer made ready for chat), with threads and seeds set and no call home."""
    from datasets import disable_progress_bars
    from transformers import set_seed
    from transformers.utils.logging import disable_progress_bar

    settings.check(recipe)
    disable_progress_bar()
    disable_progress_bars()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    torch.set_num_threads(recipe.threads)
    path = input_model(run, recipe.model)
    model, tokenizer = load_pair(path)
    set_seed(recipe.seed)
    prepare_chat(tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def adapter(lora: LoRA | None) -> LoraConfig | None:
    """PEFT's config of a recipe's adapter."""
    if lora is None:
        return None
    from peft import LoraConfig

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )


def finish(trainer: Trainer, tokenizer: Any, run: Recorder) -> bool:
    """Train (from the last whole checkpoint if there is one) and write the artefact "model".

    Returns False, with a checkpoint and no artefact, where the run was asked to stop first.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the run's metrics are the record; its rows would only fill the log
    trainer.add_callback(RunCallback(run))
    checkpoint = last_checkpoint(run.folder("checkpoints"))
    if checkpoint:
        run.event("resumed", at_step=int(checkpoint.name.rpartition("-")[2]), checkpoint=checkpoint.name)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step < trainer.args.max_steps:
        return False
    if run.is_main:
        model = merged(trainer.accelerator.unwrap_model(trainer.model), run)
        run.artefact("model", save_pair(model, tokenizer, run.path / "model"), kind="model")
    return True


@torch.no_grad()
def merged(model: Any, run: Recorder) -> PreTrainedModel:
    """The model with its adapter added into the weights, proved to compute the same. A full model is returned as it is.

    Raises `LabError` where the merged logits differ (as they do for quantised or wrongly tied weights).
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    model.eval()
    probe = torch.arange(8, 40, device=model.device)[None] % model.config.vocab_size
    before = model(input_ids=probe).logits.float()
    whole = model.merge_and_unload()
    change = float((whole(input_ids=probe).logits.float() - before).abs().max() / before.abs().max())
    run.note(merge_change=change)
    if not change < MERGE_TOLERANCE:
        raise LabError(f"Merging the adapter changed the model's logits by {change:.2g} of their largest; the merged model is not the trained one")  # fmt: skip
    return whole
