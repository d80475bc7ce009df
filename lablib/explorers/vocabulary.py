"""The vocabulary: how many tokens text takes at each size, measured, and what the embedding costs a model."""

from __future__ import annotations

from functools import cache

import numpy as np
from pydantic import field_validator

from lablib import charts
from lablib.charts import Figure, Frame
from lablib.charts.sample import rounded
from lablib.data.tokenizer.fertility import Fertility
from lablib.data.tokenizer.published import PUBLISHED
from lablib.explorers import show
from lablib.explorers.explorer import Explorer, catalogued, knob
from lablib.explorers.view import Headline, Table, View
from lablib.plan import flops, params
from lablib.specs import ModelSpec, Prepare, catalog
from lablib.specs.catalog import rows
from lablib.specs.units import show_count

BASE = 32_768
"""The vocabulary that others are held against: Llama 2's size, and the guide's small one."""
CLAIM = 15.0
"""Per cent fewer tokens at 128K than at 32K, as the guide's §4.2 says."""
CLAIMED = 131_072
CONTEXT = 2048
"""Sequence length, in tokens, at which attention's FLOPs are counted."""
OURS = "core"
BEHIND = 1.2
"""A published tokenizer that holds so many times the bytes in a token is spoken of."""


class VocabularyPlan(Explorer):
    """Size of the vocabulary against tokens, parameters and compute (``catalogue/fertility.csv``)."""

    vocab: int = knob(BASE, "Vocabulary", 1024, CLAIMED, powers_of_two=True)
    text: str = knob("code", "Text", choices=tuple(dict.fromkeys(row["text"] for row in rows("fertility"))))
    model: str = knob("qwen3-0.6b", "Model", choices=tuple(catalog.models))

    _known = field_validator("model")(catalogued)

    @property
    def recipe(self) -> Prepare:
        """A preparation of the default corpus with this vocabulary."""
        return Prepare(name="prepare", vocab=self.vocab)

    @property
    def spec(self) -> ModelSpec:
        """The model with this vocabulary."""
        return catalog.models[self.model].replace(vocab=self.vocab)

    def bytes_per_token(self, vocab: int) -> float:
        """Of the chosen text: measured at powers of two, in between by the logarithm of the size."""
        found = _ours(self.text)
        values = [row.bytes_per_token for row in found.values()]
        return float(np.interp(np.log2(vocab), np.log2(list(found)), values))

    def saved(self, vocab: int) -> float:
        """Share of the tokens at `BASE` that a vocabulary spares on the chosen text; negative where it takes more."""
        return 1 - self.bytes_per_token(BASE) / self.bytes_per_token(vocab)

    def flops_per_byte(self, vocab: int) -> float:
        """Forward FLOPs of the model for one byte of the chosen text."""
        forward = flops.forward(self.spec.replace(vocab=vocab), flops.causal_context(CONTEXT))
        return float(sum(forward.values())) / self.bytes_per_token(vocab)

    def view(self) -> View:
        """Headlines, both curves, the published tokenizers on the same text, and the claim beside the measurement."""
        return View(
            title=f"A vocabulary of {self.vocab:,} on {self.text}",
            subtitle=f"{self.model} · byte-level BPE trained on the corpus `core`",
            headlines=self._headlines(),
            charts=FIGURES,
            frames=self._frames(),
            tables=(self._table(),),
            notes=self._notes(),
        )

    def _headlines(self) -> tuple[Headline, ...]:
        counted, saved = params.count(self.spec), self.saved(self.vocab)
        part = counted.embedding / counted.total
        relative = self.flops_per_byte(self.vocab) / self.flops_per_byte(BASE)
        return (
            Headline("Bytes a token", f"{self.bytes_per_token(self.vocab):.3g}", f"measured on {self.text}"),
            Headline("Tokens saved", show.share(saved), "of those at 32K"),
            Headline(
                "Embedding and head",
                show_count(counted.embedding),
                f"parameters, {show.share(part)} of the model",
                "warn" if part > 0.3 else "plain",
            ),
            Headline("Compute for the same text", f"{relative:.2f}×", "of that at 32K"),
        )

    def _frames(self) -> dict[str, Frame]:
        sizes, others = list(_ours(self.text)), _published(self.text)
        base = self.flops_per_byte(BASE)
        tokens = [self.bytes_per_token(BASE) / self.bytes_per_token(size) for size in sizes]
        cost = [self.flops_per_byte(size) / base for size in sizes]
        return {
            "fertility": {"vocab": sizes, "bytes": [rounded(self.bytes_per_token(size)) for size in sizes]},
            "published": {
                "name": list(others),
                "vocab": [row.vocab for row in others.values()],
                "bytes": [rounded(row.bytes_per_token) for row in others.values()],
            },
            "vocabulary": {"vocab": [self.vocab]},
            "cost": {
                "vocab": sizes * 2,
                "flops": [rounded(value) for value in (*cost, *tokens)],
                "part": ["with the head's share"] * len(sizes) + ["tokens alone"] * len(sizes),
            },
        }

    def _table(self) -> Table:
        ours = {f"{OURS}, {show_count(size)}": _ours(self.text)[size] for size in (BASE, CLAIMED)}
        cells = [
            (name, f"{row.vocab:,}", f"{row.bytes_per_token:.3g}", _each(row))
            for name, row in {**ours, **_published(self.text)}.items()
        ]
        caption = "Same text for all: held-out documents of a domain, or the Universal Declaration of Human Rights."
        return Table("Beside published tokenizers", ("Tokenizer", "Vocabulary", "Bytes a token", "Tokens a word"), tuple(cells), caption)  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        saved = 100 * self.saved(CLAIMED)
        notes = [
            f"The guide says that 128K takes about {CLAIM:g} % fewer tokens than 32K; on {self.text} this corpus' "
            f"tokenizer takes {saved:.3g} % fewer."
        ]
        best, row = max(_published(self.text).items(), key=lambda one: one[1].bytes_per_token)
        ahead = row.bytes_per_token / self.bytes_per_token(self.vocab)
        if ahead > BEHIND:
            notes.append(
                f"A token of {best} holds {ahead:.2f} times as many bytes: it is larger, and `core` may have too little "
                f"{self.text}. Train the tokenizer on the mixture that the model will read."
            )
        notes.append(
            "Tokens saved are not loss saved: bits per byte compare models whose tokenizers differ, loss per token does not."
        )
        return tuple(notes)


def _each(row: Fertility) -> str:
    return "no spaces" if row.tokens_per_word is None else f"{row.tokens_per_word:.3g}"


@cache
def _rows() -> dict[str, list[Fertility]]:
    found: dict[str, list[Fertility]] = {}
    for row in rows("fertility"):
        numbers = {name: int(row[name]) for name in ("vocab", "bytes", "words", "tokens")}
        found.setdefault(row["text"], []).append(Fertility(tokenizer=row["tokenizer"], text=row["text"], **numbers))
    return found


def _ours(text: str) -> dict[int, Fertility]:
    """By size, smallest first."""
    return dict(sorted((row.vocab, row) for row in _rows()[text] if row.tokenizer == OURS))


def _published(text: str) -> dict[str, Fertility]:
    """By title, in the order of the table."""
    return {PUBLISHED[row.tokenizer].title: row for row in _rows()[text] if row.tokenizer != OURS}


FIGURES: tuple[Figure, ...] = (charts.fertility(), charts.vocabulary_cost())
