"""Batched, left-padded generation equals one prompt at a time; padding on the wrong side does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lablib.models.chat import encode_prompt, prepare_chat
from lablib.models.generate import generate, generation_settings, stop_ids
from lablib.models.load import load_pair

QUESTIONS = [
    "a",
    "What is this about, then?",
    "Tell me more " * 6,
    "1 2 3",
    "Determine if the year 2067 is a leap year.",
]


@pytest.fixture(scope="module")
def pair(tiny: Path) -> tuple[Any, Any]:
    model, tokenizer = load_pair(tiny)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)  # sharper, so that what is read changes what is said
    return model, prepare_chat(tokenizer)


def test_a_batch_says_what_each_prompt_says_alone(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    prompts = [encode_prompt(tokenizer, text) for text in QUESTIONS]
    settings = generation_settings(tokenizer, 12)
    together = generate(model, tokenizer, prompts, settings, batch_size=5)
    alone = [generate(model, tokenizer, [prompt], settings, batch_size=1)[0] for prompt in prompts]
    assert together == alone and len(set(alone)) > 1
    wrong = model.generate(
        torch.tensor([row + [tokenizer.pad_token_id] * (max(map(len, prompts)) - len(row)) for row in prompts]),
        attention_mask=torch.tensor([[1] * len(row) + [0] * (max(map(len, prompts)) - len(row)) for row in prompts]),
        generation_config=settings,
    )
    right_padded = [tokenizer.decode(row[max(map(len, prompts)) :], skip_special_tokens=True) for row in wrong]
    assert right_padded != alone


def test_greedy_is_the_stepwise_argmax(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    ids = encode_prompt(tokenizer, QUESTIONS[1])
    said: list[int] = []
    with torch.no_grad():
        while len(said) < 8 and (not said or said[-1] not in stop_ids(tokenizer)):
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
    [text] = generate(model, tokenizer, [ids], generation_settings(tokenizer, 8), 1)
    kept = said[:-1] if said[-1] in stop_ids(tokenizer) else said
    assert text == tokenizer.decode(kept, skip_special_tokens=True)


def test_nothing_is_inherited_from_the_models_folder(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    prompt = encode_prompt(tokenizer, "hello")
    before = generate(model, tokenizer, [prompt], generation_settings(tokenizer, 8), 1)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, top_k=3)
    assert generate(model, tokenizer, [prompt], generation_settings(tokenizer, 8), 1) == before


def test_sampling_differs_from_greedy_and_repeats_with_its_seed(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    prompts = [encode_prompt(tokenizer, "hello")] * 4
    warm = generation_settings(tokenizer, 8, temperature=1.5)
    torch.manual_seed(3)
    first = generate(model, tokenizer, prompts, warm, 4)
    torch.manual_seed(3)
    assert generate(model, tokenizer, prompts, warm, 4) == first and len(set(first)) > 1
