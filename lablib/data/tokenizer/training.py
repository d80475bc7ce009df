"""Learn a vocabulary. Whatever the algorithm, text becomes bytes first, so that nothing is unknown or lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lablib.data.tokenizer.patterns import PATTERNS
from lablib.data.tokenizer.special import SMALLEST, SPECIAL
from lablib.specs import LabError
from lablib.specs.tokenizing import Split, TokenizerSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTINUES = "↘"
"""Begins a WordPiece token that does not begin a piece. BERT's ``##`` would be mistaken for text: it is two letters of
GPT-2's byte alphabet, and this character is none."""
LONGEST_PIECE = 64
"""Bytes of a piece that WordPiece sees at once: its search is quadratic, and it calls longer words unknown."""
_PENALTIES = 0.03
"""The Unigram trainer gives bytes that it never saw the least score and up to 256 × 0.0001 more, in random order."""
_DIGITS = 6
"""Of a Unigram score: sums in another order move only later ones."""


def train(texts: Iterable[str], vocab: int, spec: TokenizerSpec = TokenizerSpec()) -> Tokenizer:  # noqa: B008
    """A tokenizer of at most `vocab` tokens (fewer where the texts hold too few pieces).

    The result depends only on how often each piece occurs, not on the order of the texts. BPE's ties go to the pair with
    the smaller ids. Raises `LabError` for a vocabulary that has no room for the bytes and special tokens.
    """
    smallest = SMALLEST + 256 * (spec.kind == "wordpiece")
    if vocab < smallest:
        bytes_of = "256 bytes" if spec.kind != "wordpiece" else "256 bytes at the start and inside of a piece"
        raise LabError(f"vocab={vocab} is too small: {len(SPECIAL)} special tokens and {bytes_of} need {smallest}")
    return {"bpe": _bpe, "unigram": _unigram, "wordpiece": _wordpiece}[spec.kind](texts, vocab, spec.split)


def _bpe(texts: Iterable[str], vocab: int, split: Split) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = _splitter(split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL), initial_alphabet=alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: Iterable[str], vocab: int, split: Split) -> Tokenizer:
    """Ids go by spelling and scores are rounded, for the trainer's own order and last digits change from run to run."""
    from tokenizers import Tokenizer, decoders, models, trainers

    learning = Tokenizer(models.Unigram())
    learning.pre_tokenizer = _splitter(split)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab, special_tokens=list(SPECIAL), initial_alphabet=alphabet(), show_progress=False, unk_token=None
    )
    learning.train_from_iterator(texts, trainer)
    found = [(token, score) for token, score in json.loads(learning.to_str())["model"]["vocab"] if token not in SPECIAL]
    least = min(score for _, score in found)
    scores = {token: least if len(token) == 1 and score < least + _PENALTIES else score for token, score in found}
    rows = [(token, 0.0) for token in SPECIAL] + [(token, round(scores[token], _DIGITS)) for token in sorted(scores)]
    tokenizer = Tokenizer(models.Unigram(rows, unk_id=None, byte_fallback=False))
    tokenizer.pre_tokenizer = _splitter(split)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _wordpiece(texts: Iterable[str], vocab: int, split: Split) -> Tokenizer:
    """Every byte is in twice, at the start of a piece and inside; naming them first also fixes the order of ties."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    chunks = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{LONGEST_PIECE}}}"), behavior="isolated")
    settings: dict[str, Any] = {"unk_token": SPECIAL[-1], "max_input_chars_per_word": LONGEST_PIECE}
    learning = Tokenizer(models.WordPiece(**settings))
    learning.pre_tokenizer = pre_tokenizers.Sequence([_splitter(split), chunks])
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab,
        special_tokens=[*SPECIAL, *(CONTINUES + letter for letter in alphabet())],
        initial_alphabet=alphabet(),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    learning.train_from_iterator(texts, trainer)
    model = models.WordPiece(vocab=learning.get_vocab(), continuing_subword_prefix=CONTINUES, **settings)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = learning.pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace(CONTINUES, ""), decoders.ByteLevel()])
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _splitter(split: Split) -> Any:
    from tokenizers import Regex, pre_tokenizers

    pieces = pre_tokenizers.Split(Regex(PATTERNS[split]), behavior="isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def alphabet() -> list[str]:
    """GPT-2's letters for the 256 bytes, sorted."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def truncated(tokenizer: Tokenizer, vocab: int) -> Tokenizer:
    """The BPE tokenizer that training on the same text would have given at a smaller `vocab`: its first merges.

    Raises `LabError` for another algorithm, or a size that has no room for the bytes.
    """
    from tokenizers import Tokenizer

    document = json.loads(tokenizer.to_str())
    model = document["model"]
    if model["type"] != "BPE":
        raise LabError(f"a {model['type']} tokenizer cannot be cut to vocab={vocab}; train one of that size")
    if vocab < SMALLEST:
        raise LabError(f"vocab={vocab} is too small: {len(SPECIAL)} special tokens and 256 bytes need {SMALLEST}")
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < vocab}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    return Tokenizer.from_str(json.dumps(document))
