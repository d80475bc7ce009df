"""A byte-level BPE tokenizer whose special tokens no text can produce.

Pieces are split by Qwen-2's published pattern, verbatim: digits stand alone (arithmetic is then learnt digit by digit)
and fast encoders know the pattern. There is no normaliser, so decoding gives back every text exactly. All 256 bytes are
in the vocabulary, so that no text is unknown.

Three ids end things. ``<|endoftext|>`` ends a document in pretraining. ``<|im_end|>`` ends a turn and is the `eos` of
generation, because a chat model must stop there. ``<|pad|>`` fills batches and is nothing else: padding with an end token
would teach a model, or its loss mask, never to end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lablib.specs import LabError, write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen-2's pre-tokenisation (transformers, `tokenization_qwen2.py`)."""
SEPARATOR, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (
    *(SEPARATOR, TURN_START, TURN_END, PAD, "<think>", "</think>", "<tool_call>", "</tool_call>"),
    *(f"<|reserved_{number}|>" for number in range(8)),
)
"""Ids 0 to 15, in this order; the reserved ones are for what you add later without growing the embedding."""
SMALLEST = 256 + len(SPECIAL)
"""A vocabulary holds every byte and every special token."""
MAX_LENGTH = 1_000_000_000
"""The tokenizer itself sets no limit; the model's config does."""

_PLAIN = "replace('<|', '< |') | replace('<think>', '< think>') | replace('</think>', '< /think>')"
_PLAIN += " | replace('<tool_call>', '< tool_call>') | replace('</tool_call>', '< /tool_call>')"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "{{- '<|im_start|>assistant\\n' -}}"
    "{%- generation -%}{{- (message.content | replace('<|', '< |')) + '<|im_end|>' -}}{%- endgeneration -%}"
    "{{- '\\n' -}}"
    "{%- else -%}"
    "{{- '<|im_start|>' + (message.role | "
    + _PLAIN
    + ") + '\\n' + (message.content | "
    + _PLAIN
    + ") + '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML. Marks what the assistant says (and its ``<|im_end|>``) as the tokens to learn from. A special token's spelling
inside a message gets a blank after its ``<``, so that what a user writes cannot end a turn; only the assistant may think
and call tools."""


def train(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of at most `vocab` tokens (fewer where the texts hold fewer pairs).

    Merges depend only on how often each piece occurs, not on the order of the texts; ties go to the pair with the
    smaller ids. Raises `LabError` for a vocabulary that has no room for the bytes and special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, trainers

    if vocab < SMALLEST:
        raise LabError(f"vocab={vocab} is too small: {len(SPECIAL)} special tokens and 256 bytes need {SMALLEST}")
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL), initial_alphabet=_alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _splitter() -> Any:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face tokenizer folder that `AutoTokenizer` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "bos_token": None,
        "unk_token": None,
    }
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=1))
    write_atomic(folder / "chat_template.jinja", CHAT_TEMPLATE)


def load(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder, set so that it never turns text into special tokens. Raises `LabError`."""
    from tokenizers import Tokenizer

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise LabError(f"There is no tokenizer in {folder} (tokenizer.json is missing); prepare the data again")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
    """Token ids of plain texts, without separators; a special token's spelling becomes ordinary tokens."""
    tokenizer.encode_special_tokens = True
    done = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(item.ids, dtype=np.uint32) for item in done]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of untrusted text under a transformers tokenizer: like calling it, but special tokens cannot appear."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids
