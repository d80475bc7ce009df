"""Batched generation that equals one-by-one generation: left padding, explicit settings, explicit ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from lablib.models.chat import END

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end a completion: the tokenizer's own end, the end of a turn and the end of a document."""
    known = tokenizer.get_vocab()
    names = (tokenizer.eos_token, END, "<|endoftext|>")
    return sorted({known[name] for name in names if name in known})


def generation_settings(tokenizer: Any, max_new_tokens: int, temperature: float = 0.0) -> GenerationConfig:
    """Greedy at temperature 0, else plain sampling from the full softmax. Nothing is inherited from the model's folder,
    whose own sampling defaults would make two models' scores differ for no reason of theirs.
    """
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_ids(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        **{"do_sample": False, **sampling},
    )


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    settings: GenerationConfig,
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """A completion for each prompt (token ids), in the prompts' order; `report` gets the number done.

    Prompts of like length share a batch, so that padding is short. Special tokens are left out of the text.
    """
    training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        for i, text in zip(chosen, _batch(model, tokenizer, [prompts[i] for i in chosen], settings), strict=True):
            texts[i] = text
        report(start + len(chosen))
    model.train(training)
    return texts


def _batch(model: PreTrainedModel, tokenizer: Any, prompts: list[list[int]], settings: GenerationConfig) -> list[str]:
    """Pad on the left, so that every prompt's last token is next to its continuation."""
    longest = max(map(len, prompts))
    ids = [[settings.pad_token_id] * (longest - len(row)) + row for row in prompts]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in prompts]
    made = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=settings,
    )
    return [_text(tokenizer, row[longest:].tolist(), set(settings.eos_token_id)) for row in made]


def _text(tokenizer: Any, ids: list[int], ends: set[int]) -> str:
    """The text before the first end."""
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return str(tokenizer.decode(ids[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False))
