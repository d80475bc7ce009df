"""Published pre-tokenisation patterns, verbatim. Fast encoders know them by their text."""

from __future__ import annotations

from lablib.specs.tokenizing import Split

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS: dict[Split, str] = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama3": _LLAMA3,
    "cl100k": _LLAMA3,
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}
"""Name → pattern. qwen2: transformers' `tokenization_qwen2.py`. llama3: Llama 3's `tokenizer.py`; cl100k as converted to
`tokenizer.json`, which is the same text (tiktoken's own uses possessive quantifiers that other engines read otherwise).
gpt2: tiktoken's `openai_public.py`, r50k before possessive quantifiers; it splits as GPT-2's `encoder.py` does."""
