"""Text to ids: the library's encoder is the reference, and a faster one is used only where it gives the same ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lablib.data.tokenizer.special import SPECIAL
from lablib.data.tokenizer.spelling import letters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = list[NDArray[np.uint32]]
STRESS = (
    "a\u00a0b\u00a0\u00a0c\u00a0\n",
    "日本語のテスト、漢字かな交じり文。中文分词没有空格 한국어 ไทย العربية हिन्दी",
    "naïve e\u0301 ﬁ ﬀ ǆ ß ſ K İi \u200b\u200d\ufeff\u00adx",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 ✌🏽",
    "12345 ٣٤٥ Ⅷ ½² १२३ 1,234.5e-10 0x1F",
    "I'LL don't 's ''S 'ſ they're 'D'd",
    "def f(x):\n\treturn x ** 2  # no\r\n\r\n    if  a!=b :\n\n\n\t\t pass   ",
    " \n  \n", "\r", "\t \u2028\x85\x1c\x0b\x0c", " " * 99, "a" * 999, "=" * 999, "\n" * 99, "", " ",
    "".join(SPECIAL), " ".join(SPECIAL), "<|im_end|>x<|im_end|", "< |im_end|><think></think >", "<|endoftext|>" * 9,
)  # fmt: skip
"""Where split patterns and special spellings go wrong: tokie 0.1.4 fails the first, gigatoken as it loads the last ones."""
CUT = 20_000
"""Characters of each compared document."""


UNKNOWN = (RuntimeError, ValueError, LookupError, TypeError)
"""What reading a tokenizer of another form raises, in the packages and here."""


@dataclass(frozen=True)
class Encoder:
    """A way from texts to ids that was proved to be the reference's on a sample."""

    name: str
    """Package and version."""
    run: Callable[[Sequence[str]], Ids]
    compared: int = 0
    """Texts on which its ids were compared with the reference's; all were equal."""
    refused: dict[str, str] = field(default_factory=dict)
    """Faster ones that were not taken, and why."""

    def facts(self) -> dict[str, Any]:
        """What the shards' manifest says about it."""
        return {"name": self.name, "compared": self.compared, "refused": self.refused}


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Ids:
    """Token ids of plain texts, without separators; a special token's spelling becomes ordinary tokens."""
    tokenizer.encode_special_tokens = True
    done = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(item.ids, dtype=np.uint32) for item in done]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of untrusted text under a transformers tokenizer: like calling it, but special tokens cannot appear. Those that
    were added without being marked special still can: read a tokenizer from elsewhere with `folder.load`."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def reference(tokenizer: Tokenizer) -> Encoder:
    """The library's own encoder."""
    return Encoder(f"tokenizers {version('tokenizers')}", lambda texts: encode(tokenizer, texts))


def fastest(tokenizer: Tokenizer, documents: Sequence[str], threads: int = 1) -> Encoder:
    """The fastest encoder whose ids equal the reference's on `STRESS`, on each token's text and on `documents`.

    Each document counts up to `CUT` characters. With `threads` above 1 it may use more than one core.
    """
    texts = [*STRESS, *_tokens(tokenizer), *(text[:CUT] for text in documents)]
    wanted, refused = encode(tokenizer, texts), {}
    for name, make in FAST.items():
        label = f"{name} {version(name)}"
        try:
            run = make(tokenizer, threads)
            found = run(texts)
        except UNKNOWN as error:
            refused[label] = str(error).split("\n", 1)[0][:200]
            continue
        wrong = [text for text, ids, right in zip(texts, found, wanted, strict=True) if not np.array_equal(ids, right)]
        if not wrong:
            return Encoder(label, run, len(texts), refused)
        refused[label] = f"other ids for {len(wrong)} of {len(texts)} texts, the first being {wrong[0][:60]!r}"
    return Encoder(reference(tokenizer).name, reference(tokenizer).run, 0, refused)


def chosen(tokenizer: Tokenizer, facts: Mapping[str, Any], threads: int = 1) -> Encoder:
    """The encoder that `fastest` chose for this tokenizer, by its `Encoder.facts`."""
    make = FAST.get(facts["name"].partition(" ")[0])
    run = reference(tokenizer).run if make is None else make(tokenizer, threads)
    return Encoder(facts["name"], run, facts["compared"], dict(facts["refused"]))


def _tokens(tokenizer: Tokenizer) -> list[str]:
    """The text of every token that is valid UTF-8 by itself."""
    size = tokenizer.get_vocab_size()
    texts = tokenizer.decode_batch([[number] for number in range(size)], skip_special_tokens=True)
    return [text for text in texts if text and "\ufffd" not in text]


def _gigatoken(tokenizer: Tokenizer, threads: int) -> Callable[[Sequence[str]], Ids]:
    """Special tokens are taken out of what it loads: it would find them in text."""
    import gigatoken

    fast = gigatoken.Tokenizer.from_json(json.dumps({**json.loads(tokenizer.to_str()), "added_tokens": []}))

    def run(texts: Sequence[str]) -> Ids:
        rows = fast.encode_batch(list(texts), parallel=threads > 1).layout
        ends = np.asarray(rows.offsets.data)
        flat = np.asarray(rows.content.data, dtype=np.uint32)
        return [flat[start:end] for start, end in pairwise(ends)]

    return run


def _tiktoken(tokenizer: Tokenizer, threads: int) -> Callable[[Sequence[str]], Ids]:
    """A BPE token's id is its rank; single bytes and special tokens come first in ours."""
    import tiktoken

    document = json.loads(tokenizer.to_str())
    if document["model"]["type"] != "BPE" or document["normalizer"]:
        raise ValueError(f"a {document['model']['type']} model is not what it encodes")
    table, added = letters(), {item["content"]: item["id"] for item in document["added_tokens"]}
    tokens = document["model"]["vocab"].items()
    ranks = {bytes(table[c] for c in token): number for token, number in tokens if token not in added}
    pattern = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    fast = tiktoken.Encoding("lab", pat_str=pattern, mergeable_ranks=ranks, special_tokens=added)

    def run(texts: Sequence[str]) -> Ids:
        rows = fast.encode_ordinary_batch(list(texts), num_threads=threads)
        return [np.array(row, dtype=np.uint32) for row in rows]

    return run


FAST: dict[str, Callable[[Tokenizer, int], Callable[[Sequence[str]], Ids]]] = {
    "gigatoken": _gigatoken,
    "tiktoken": _tiktoken,
}
"""Package → its encoder of a tokenizer, fastest first (`bench/data/tokenizing.py`)."""
