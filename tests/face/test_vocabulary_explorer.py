"""The vocabulary explorer says what was measured, what the planner counts, and where the guide's claim does not hold."""

from __future__ import annotations

import pytest

from lablib.explorers import VocabularyPlan
from lablib.plan import params
from lablib.specs import LabError, Prepare, catalog
from lablib.specs.catalog import rows


def measured(tokenizer: str, vocab: int, text: str) -> float:
    [row] = [r for r in rows("fertility") if (r["tokenizer"], int(r["vocab"]), r["text"]) == (tokenizer, vocab, text)]
    return int(row["bytes"]) / int(row["tokens"])


def test_headlines_are_the_table_and_the_planner() -> None:
    screen = VocabularyPlan(vocab=131_072, text="code", model="qwen3-0.6b")
    shown = {item.label: item.value for item in screen.view().headlines}
    ours, base = measured("core", 131_072, "code"), measured("core", 32_768, "code")
    assert shown["Bytes a token"] == f"{ours:.3g}" and shown["Tokens saved"] == f"{100 * (1 - base / ours):.3g} %"
    spec = catalog.models["qwen3-0.6b"].replace(vocab=131_072)
    assert params.count(spec).embedding == 131_072 * 1024 and shown["Embedding and head"] == "134M"


def test_the_heads_price_is_seen_in_a_small_model_and_not_in_a_large_one() -> None:
    small, large = VocabularyPlan(model="smollm2-135m"), VocabularyPlan(model="llama-3.1-405b")
    tokens = measured("core", 32_768, "code") / measured("core", 131_072, "code")
    dear, cheap = (one.flops_per_byte(131_072) / one.flops_per_byte(32_768) for one in (small, large))
    assert dear > 1.1 * tokens and cheap == pytest.approx(tokens, rel=0.01)


def test_the_claim_stands_beside_the_measurement() -> None:
    for text in ("code", "German"):
        saved = 100 * (1 - measured("core", 32_768, text) / measured("core", 131_072, text))
        assert any(f"about 15 % fewer tokens than 32K; on {text}" in n and f"takes {saved:.3g} % fewer" in n for n in VocabularyPlan(text=text).view().notes)  # fmt: skip


def test_published_tokenizers_are_on_the_same_text() -> None:
    view = VocabularyPlan(text="Japanese").view()
    titles = {
        "cl100k": "GPT-4 (cl100k)",
        "llama3": "Llama 3.1",
        "qwen3": "Qwen3",
        "o200k": "GPT-4o (o200k)",
        "gemma3": "Gemma 3",
    }
    table = {row[0]: row[1:] for row in view.tables[0].rows}
    for name, title in titles.items():
        [vocab] = {int(row["vocab"]) for row in rows("fertility") if row["tokenizer"] == name}
        assert table[title] == (f"{vocab:,}", f"{measured(name, vocab, 'Japanese'):.3g}", "no spaces")
    assert any("Train the tokenizer on the mixture" in note for note in view.notes), "core has no Japanese"


def test_between_measured_sizes_it_lies_between_them() -> None:
    screen = VocabularyPlan(text="English")
    low, mid, high = (screen.bytes_per_token(size) for size in (16_384, 24_000, 32_768))
    assert low < mid < high


def test_its_figures_are_valid_and_its_state_is_a_recipe() -> None:
    screen = VocabularyPlan(vocab=8192)
    view = screen.view()
    for figure in view.charts:
        figure.chart.to_dict(validate=True)
        assert set(figure.data) <= set(view.frames)
    assert Prepare.from_toml(screen.recipe.to_toml()) == screen.recipe and screen.recipe.vocab == 8192
    assert view.words() == screen.view().words()
    with pytest.raises(LabError, match="qwen3"):
        VocabularyPlan(model="qwen3-0.6x")
