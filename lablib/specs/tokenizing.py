"""`TokenizerSpec`: how text is split and which algorithm learns the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Tag

from lablib.specs.base import Spec
from lablib.specs.data import Ref

TokenizerKind = Literal["bpe", "unigram", "wordpiece"]
"""All three work on UTF-8 bytes, so that every text has tokens and comes back exactly."""
Split = Literal["qwen2", "llama3", "cl100k", "gpt2"]
"""Published patterns, in `lablib.data.tokenizer.patterns`: digits stand alone (qwen2), in groups of up to three (llama3,
cl100k) or as whole numbers (gpt2)."""


class TokenizerSpec(Spec):
    """A tokenizer to train; its size is the recipe's `vocab`."""

    kind: TokenizerKind = "bpe"
    """``bpe`` (arXiv 1508.07909) is what nearly every language model uses and what fast encoders know; ``unigram``
    (arXiv 1804.10959) and ``wordpiece`` (BERT's) are here for comparison and encode at the library's speed."""
    split: Split = "qwen2"
    """No token crosses the borders of these pieces."""


def _kind_named(value: Any) -> Any:
    """A kind's name stands for its spec."""
    return {"kind": value} if value in get_args(TokenizerKind) else value


def _form(value: Any) -> str:
    if isinstance(value, str):
        return "folder"
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    return "ref" if "run" in keys else "spec"


TokenizerInput = Annotated[
    Annotated[TokenizerSpec, Tag("spec")] | Annotated[Ref, Tag("ref")] | Annotated[str, Tag("folder")],
    Discriminator(_form),
    BeforeValidator(_kind_named),
]
"""A tokenizer to train, another run's, or a folder with one."""
