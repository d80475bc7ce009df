"""A tiny model and recipes that train it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from lablib.specs import Parallelism, Task

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
TEXTS = ["user assistant system Yes No", "Determine if the year 2067 is a leap year. Answer with Yes or No."] * 3
LEAP = Task(name="leap", generator="calendar_arithmetic", params={"tasks": ["is_leap_year"]}, train=120, test=60)
GCD = Task(name="gcd", generator="gcd", params={"max_value": 60}, train=64, test=48)
COMMON: dict[str, Any] = {"precision": "fp32", "seq_len": 160}


def layout(micro_batch_size: int) -> dict[str, Parallelism]:
    """The recipe field for one process with this micro-batch."""
    return {"parallelism": Parallelism(micro_batch_size=micro_batch_size)}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens with single digits, as `Prepare` makes (a base model's: no chat template)."""
    made = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|pad|>")


def make_tiny(folder: Path) -> Path:
    """Save a random two-layer model and its tokenizer."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen3Config(
        vocab_size=320,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
        use_cache=False,
        max_position_embeddings=512,
        **shape,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_rows(run: Path) -> list[dict[str, Any]]:
    """A run's training metrics, the last row of each step."""
    return list({row["step"]: row for row in lines(run / "metrics" / "train.jsonl")}.values())
