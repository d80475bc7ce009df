"""Tokenizers whose special tokens no text can produce: train, save, load, encode fast, and freeze.

There is no normaliser and every one of the 256 bytes is in the vocabulary, so that decoding gives back every text exactly
and no text is unknown, whichever algorithm learnt the vocabulary. `special` has the reserved ids and the chat template,
`patterns` the published split patterns, `folder` the hash that a model is bound to.
"""

from lablib.data.tokenizer.encoding import Encoder, chosen, encode, encode_text, fastest, reference
from lablib.data.tokenizer.folder import FILES, copy, end_and_pad, load, require, save, tokenizer_hash
from lablib.data.tokenizer.patterns import PATTERNS
from lablib.data.tokenizer.special import CHAT_TEMPLATE, PAD, SEPARATOR, SMALLEST, SPECIAL, TURN_END, TURN_START
from lablib.data.tokenizer.spelling import lengths, spellings
from lablib.data.tokenizer.training import train, truncated

__all__ = [
    "CHAT_TEMPLATE",
    "FILES",
    "PAD",
    "PATTERNS",
    "SEPARATOR",
    "SMALLEST",
    "SPECIAL",
    "TURN_END",
    "TURN_START",
    "Encoder",
    "chosen",
    "copy",
    "encode",
    "encode_text",
    "end_and_pad",
    "fastest",
    "lengths",
    "load",
    "reference",
    "require",
    "save",
    "spellings",
    "tokenizer_hash",
    "train",
    "truncated",
]
