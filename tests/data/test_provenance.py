"""Provenance to the shard: what a row says of its text can be asked of the tokens that it became."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lab.__main__ import main
from lablib.data import card, provenance, shards
from lablib.data.mixing.collapse import Caps, guard
from lablib.data.prepare import prepare
from lablib.data.tokenizer import load
from lablib.runs import Recorder, jsonl
from lablib.specs import Decontaminate, LabError, Prepare
from lablib.specs.synthetic import Synthetic

LONG = " and some more words to pass the least length of a document"


def rows() -> list[dict[str, object]]:
    """Human pages with addresses, and what models made of them, some of it of the second generation."""
    human = [{"text": f"page {n}{LONG * (1 + n % 3)}", "domain": "web", "url": f"https://x.example/{n}", "date": "2024-05-01", "license": "CC0-1.0"} for n in range(30)]  # fmt: skip
    made = [
        {"text": f"tale {n}{LONG}", "domain": "tales", "synthetic": 1.0, "generation": 1 + n % 2} for n in range(20)
    ]
    mixed = [{"text": f"mix {n}{LONG}", "domain": "tales", "synthetic": 0.5} for n in range(10)]
    return [*human, *made, *mixed]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    base = tmp_path_factory.mktemp("provenance")
    lines = [json.dumps(row) for row in rows()]
    (base / "mine.jsonl").write_text("\n".join([*lines, "no row", '{"title": "no text"}', lines[0]]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(base / "home"))
        made = Recorder.create(base / "runs", Prepare(corpus=str(base / "mine.jsonl"), vocab=300, heldout=0.2))
        prepare(made.recipe, made)
    return made


def test_shares_are_weighted_by_tokens(run: Recorder) -> None:
    data = run.path / "data"
    tokenizer = load(run.path / "tokenizer")
    tokens = {str(row["text"]): len(tokenizer.encode(str(row["text"])).ids) + 1 for row in rows()}
    told = {"tales": 0.0, "web": 0.0}
    for row in rows():
        share = row.get("synthetic", 0.0)
        assert isinstance(share, float)
        told[str(row["domain"])] += tokens[str(row["text"])] * share
    found = provenance.shares(data)
    for domain in told:
        size = sum(tokens[str(row["text"])] for row in rows() if row["domain"] == domain)
        assert found[domain].tokens == size and found[domain].synthetic == pytest.approx(told[domain] / size)
    assert (found["tales"].generation, found["web"].generation) == (2, 0)


def test_every_documents_row_keeps_what_it_said(run: Recorder) -> None:
    found = list(provenance.documents(run.path / "data"))
    assert len(found) == 60 and sum(row.get("url", "").startswith("https://x.example/") for row in found) == 30
    page = next(row for row in found if row.get("url") == "https://x.example/7")
    assert page["time"] == "2024-05-01" and page["licence"] == "CC0-1.0" and "synthetic" not in page


def test_the_guard_is_fed_from_a_prepared_folder_and_its_word_is_an_event(run: Recorder) -> None:
    parts = provenance.origins(run.path / "data")
    whole = provenance.joined(list(parts.values()))
    assert len(whole.tokens) == 60 and whole.tokens.sum() == sum(row["tokens"] for row in shards.manifest(run.path / "data")["shards"])  # fmt: skip
    assert guard(whole, Caps(depth=1)).dropped["depth"] == 10, "every second tale is of the second generation"
    (event,) = (one for one in jsonl.events(run.path) if one["kind"] == "synthetic")
    assert event["dropped"] == provenance.verdict(run.path / "data").dropped and event["dropped"]["depth"] == 10
    assert event["domains"] == {"tales": {"share": pytest.approx(5 / 6, abs=0.03), "generation": 2}}
    kept = Synthetic.load(run.path / "data" / Synthetic.FILE)
    assert set(kept.domains) == {"tales"} and "tales (2)" in kept.against({"tales": 0.1, "web": 0.9})


def test_the_card_says_what_the_manifest_and_the_reading_say(run: Recorder) -> None:
    text = (run.path / "data" / "card.md").read_text()
    assert "# Data card: mine" in text and "60 documents" in text
    assert '| reading | 63 | 60 | row is not JSON 1, row without a "text" 1, exact duplicate 1 |' in text
    assert "| mine.jsonl | web | 30 | CC0-1.0 |" in text
    assert "| web | 30 | 30 | 0.0% | 0 |" in text and "CC0-1.0" in text
    assert "would drop documents: 10 by depth" in text and "Not searched for items of any benchmark" in text
    reading = card.reading(shards.manifest(run.path / "data"))["domains"]
    assert reading["mine"]["reasons"] == {"row is not JSON": 1, 'row without a "text"': 1}
    assert (reading["web"]["docs_in"], reading["web"]["docs_out"]) == (31, 30)


def test_rights_can_be_asked_for_what_models_wrote(run: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "rights", str(run.path), "--synthetic", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 30 and {row["domain"] for row in found} == {"tales"}
    assert main(["data", "rights", str(run.path)]) == 0
    assert "synthetic" in capsys.readouterr().out
    assert main(["data", "card", str(run.path)]) == 0
    assert "# Data card: mine" in capsys.readouterr().out
    assert main(["data", "funnel"]) == 2 and "needs a prepare run" in capsys.readouterr().err


def test_text_of_people_has_no_word_of_models(prepared: Path) -> None:
    """Of a corpus without these fields nothing is added: not to its rows, not to its manifest."""
    manifest = shards.manifest(prepared / "data")
    assert not any("provenance" in facts or "aside" in facts for facts in manifest["domains"].values())
    assert {key for row in provenance.documents(prepared / "data") for key in row} == {"domain", "split", "source", "licence", "sha256"}  # fmt: skip
    assert not any(event["kind"] in ("synthetic", "set aside") for event in jsonl.events(prepared))
    assert not (prepared / "data" / Synthetic.FILE).exists()
    assert all(share.synthetic == 0 for share in provenance.shares(prepared / "data").values())
    assert np.all(provenance.verdict(prepared / "data").keep)
    assert "None has an address" in (prepared / "data" / "card.md").read_text()
    with pytest.raises(LabError, match="run a Prepare recipe first"):
        provenance.shares(prepared / "nothing")


def test_a_changed_licence_or_step_is_not_answered_from_the_cache(tmp_path: Path, home: Path) -> None:
    """The texts are the same, so the corpus' hash is; what is said of them must still be what holds now."""
    file = tmp_path / "mine.jsonl"
    cards = []
    for licence, steps in (("MIT", {}), ("GPL-3.0", {}), ("GPL-3.0", {"decontaminate": Decontaminate(benchmarks=("mmlu",))})):  # fmt: skip
        file.write_text("".join(json.dumps({"text": f"{n}{LONG}", "license": licence}) + "\n" for n in range(30)))
        recipe = Prepare(corpus=str(file), vocab=300, heldout=0.2, **steps)
        run = Recorder.create(tmp_path / "runs", recipe)
        prepare(recipe, run)
        assert {row["licence"] for row in provenance.documents(run.path / "data")} == {licence}
        cards.append((run.path / "data" / "card.md").read_text())
    assert "MIT" in cards[0] and "MIT" not in cards[1]
    assert "Not searched" in cards[1] and "mmlu" in cards[2].partition("## Decontamination")[2]
