"""Decontamination beside plain n-gram scans: speed, recall by kind of variant, false positives.

    python -m bench.data.contamination [--half report] [--json] [--injections 300] [--clean 6000] [--near 2000] [--items 300]

Every detector has the same items and the same documents in the same run. Items: GSM8K, HumanEval and IFEval where their
packages are in the lab's cache, and word problems of reasoning-gym. Documents: chunks of the packages that are installed
here. A variant of an item is put into the middle of a document that holds none. Speeds are MB of UTF-8 text per second of
one core's time, indexes made before.

Settings were chosen by `--half tune`; `--half report` has the other half of the public items, word problems of another
seed, and other generators in the sets that are called unseen. Results of the unseen ones have been looked at since; the
fresh problems (`problems`) were written afterwards, and nothing was chosen by them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from scipy.stats import binomtest

from bench.data import problems
from lablib.data.contamination import registry
from lablib.data.contamination.detector import Detector
from lablib.data.contamination.index import build
from lablib.data.contamination.items import BenchmarkItem
from lablib.data.sources.machine import INSTALLED, STDLIB
from lablib.specs.contamination import Decontaminate

GENERATORS = (
    "gsm_symbolic",
    "aiw",
    "family_relationships",
    "leg_counting",
    "syllogism",
    "knights_knaves",
    "needle_haystack",
)
"""Word problems in English, from 15 words to a few hundred."""
BARE = ("time_intervals", "count_primes", "chain_sum")
"""One sentence that all items share, and in it two or three numbers: measured apart, for an edit of the few words that are
an item's own makes it another item."""
UNSEEN = {
    "tune": ("advanced_geometry", "codeio", "color_cube_rotation", "group_anagrams", "sentence_reordering", "string_manipulation", "word_sorting"),
    "report": ("calendar_arithmetic", "caesar_cipher", "countdown", "letter_counting", "letter_jumble", "simple_geometry", "word_sequence_reversal", "zebra_puzzles"),
}  # fmt: skip
"""Generators, of which no version of the detector before this split was tuned on, whose items share less than .85 of their
words, and are words, not drawings, matrices or programs of punctuation; split by a shuffle. Both halves have been looked at since: what
is reported are the fresh problems (`bench.data.problems`)."""
UNSEEN_BARE = ("coin_flip", "course_schedule", "dice", "gcd", "jugs", "quantum_lock")
CHUNK = 3000
"""Characters of a document."""
SHORTEST = 200
"""Characters; less is no document."""
OWN = "reasoning_gym"
"""A package that holds the templates of its questions: no clean text."""
HALVES = ("tune", "report")
T = TypeVar("T")
Scan = Callable[[Sequence[str]], list[bool]]


def word_problems(count: int, generators: Sequence[str] = GENERATORS, seed: int = 0) -> dict[str, list[BenchmarkItem]]:
    """`count` items of each generator."""
    return {name: made_items(name, count, seed) for name in generators}


def made_items(generator: str, count: int, seed: int = 0) -> list[BenchmarkItem]:
    """Different questions of a reasoning-gym generator, made directly: `gsm_symbolic` lays out its whole stream at the
    start, so the endless stream of a `Task` does not suit it."""
    import reasoning_gym

    entries = reasoning_gym.create_dataset(generator, seed=seed, size=2 * count)
    found = {str(entry["question"]).strip(): str(entry["answer"]) for entry in entries}
    return [BenchmarkItem(f"{generator}-{at:05}", *pair) for at, pair in enumerate(list(found.items())[:count])]


def fresh(count: int) -> dict[str, list[BenchmarkItem]]:
    """`count` items of each kind of `problems`."""
    made = {kind: problems.questions(kind, count) for kind in problems.KINDS}
    return {
        kind: [BenchmarkItem(f"{kind}-{at:05}", *one) for at, one in enumerate(found)] for kind, found in made.items()
    }


def half(every: Iterable[T], which: str) -> list[T]:
    """The half of some items or generators that is tuned on, or the one that is reported."""
    shuffled = sorted(every, key=str)
    random.Random("halves").shuffle(shuffled)
    return shuffled[HALVES.index(which) :: 2]


def real_items() -> dict[str, list[BenchmarkItem]]:
    """The public benchmarks that are present, nothing fetched."""
    return {found.name: registry.load(found) for found in registry.presences() if found.present}


def chunks(limit: int, characters: int = CHUNK) -> list[str]:
    """The first `limit` pieces of installed packages and the standard library, cut at line ends."""
    return list(islice(_chunks(characters), limit))


def _chunks(characters: int) -> Iterator[str]:
    for source in (INSTALLED, STDLIB):
        for document in source.documents():
            if OWN not in document.source:
                text = document.text
                for begin in range(0, len(text), characters):
                    if len(text) - begin >= SHORTEST:
                        yield text[begin : begin + characters]


def vocabulary(documents: Iterable[str]) -> list[str]:
    """Words that edits put in."""
    return sorted({word for text in documents for word in re.findall(r"\b[a-z]{2,9}\b", text)})


# ---- variants --------------------------------------------------------------------------------------------------------

TRANSFORMS: dict[str, Callable[[str], str]] = {
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "thin spaces": lambda text: text.replace(" ", "\u2009"),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "full-width digits": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isdigit() and c.isascii() else c for c in text),
    "ligatures": lambda text: text.replace("ffi", "ﬃ").replace("fi", "ﬁ").replace("fl", "ﬂ"),
    "curly quotes": lambda text: re.sub(r'"([^"]*)"', "“\\1”", text).replace("'", "’"),
    "soft hyphens": lambda text: re.sub(r"(\w{3})(?=\w{2})", "\\1\u00ad", text),
    "zero width": lambda text: re.sub(r"(\w)(?=\w)", "\\1\u200b", text),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "mathematical bold": lambda text: "".join(chr(0x1D400 + ord(c) - 65) if "A" <= c <= "Z" else c for c in text),
    "dashes": lambda text: text.replace("-", "–"),
}
"""Ways in which the same text is written with other code points."""


def _half(rng: random.Random, text: str, words: list[str]) -> str:
    found = text.split(" ")
    middle = len(found) // 2
    return " ".join(found[:middle] if rng.random() < 0.5 else found[middle:])


def edited(share: float) -> Callable[[random.Random, str, list[str]], str]:
    """A share of the words replaced (3 of 5), deleted, or preceded by another (1 of 5 each); at least one."""

    def variant(rng: random.Random, text: str, words: list[str]) -> str:
        found = text.split(" ")
        for place in sorted(rng.sample(range(len(found)), max(1, round(share * len(found)))), reverse=True):
            kind = rng.random()
            new = [rng.choice(words)] if kind < 0.6 else [] if kind < 0.8 else [rng.choice(words), found[place]]
            found[place : place + 1] = new
        return " ".join(found)

    return variant


Variant = Callable[[random.Random, str, list[str]], str]
VARIANTS: dict[str, Variant] = {
    "exact": lambda rng, text, words: text,
    "case": lambda rng, text, words: rng.choice([str.upper, str.lower, str.title, str.swapcase])(text),
    "punctuation": lambda rng, text, words: text.translate({ord(c): rng.choice(["", " "]) for c in string.punctuation + "’“”"}),
    "unicode": lambda rng, text, words: rng.choice(list(TRANSFORMS.values()))(text),
    "wrapped": lambda rng, text, words: "\n    # ".join(re.findall(r"(?:\S+\s*){1,7}", text)),
    "short": lambda rng, text, words: text,
    "half": _half,
    "edited 5 %": edited(0.05),
    "edited 10 %": edited(0.10),
    "edited 20 %": edited(0.20),
}  # fmt: skip


def eligible(kind: str, items: Sequence[BenchmarkItem]) -> list[BenchmarkItem]:
    """Items that a variant is made of: all of 13 words and more, or for ``short`` those of 6 to 12."""
    low, high = (6, 12) if kind == "short" else (13, 10**9)
    return [item for item in items if low <= len(re.findall(r"\w+", item.question)) <= high]


def inject(rng: random.Random, document: str, passage: str) -> str:
    """The passage as a paragraph of its own somewhere in the document."""
    place = document.rfind(" ", 0, rng.randrange(1, len(document))) + 1
    return f"{document[:place]}\n\n{passage}\n\n{document[place:]}"


def other_numbers(rng: random.Random, text: str) -> str:
    """Every number replaced by another one of as many digits."""

    def change(match: re.Match[str]) -> str:
        size, old = len(match.group()), match.group()
        low, high = (0 if size == 1 else 10 ** (size - 1)), 10**size - 1
        return rng.choice([new for new in (str(rng.randint(low, high)) for _ in range(64)) if new != old])

    return re.sub(r"\d+", change, text)


def numbers_of(text: str) -> tuple[str, ...]:
    """The numbers of a question in order."""
    return tuple(re.findall(r"\d+", text))


def near_misses(rng: random.Random, items: Sequence[BenchmarkItem], count: int) -> list[str]:
    """Questions of at least 13 words with all numbers changed. One that has the numbers of an item in order is left out:
    of few templates and small numbers it is that item, but for a name."""
    known = {numbers_of(item.question) for item in items}
    numeric = [item.question for item in eligible("exact", items) if numbers_of(item.question)]
    made: list[str] = []
    while numeric and len(made) < count:
        text = other_numbers(rng, rng.choice(numeric))
        made += [] if numbers_of(text) in known else [text]
    return made


def siblings(items: Sequence[BenchmarkItem], count: int) -> list[str]:
    """Questions of `gsm_symbolic` of far seeds: the templates of the items with other names, things and numbers, of which
    some are the same by chance or by the template; those with all numbers of an item are left out."""
    known = {numbers_of(item.question) for item in items}
    made = [item.question for item in made_items("gsm_symbolic", 2 * count, seed=10**6)]
    return [text for text in made if numbers_of(text) not in known][:count]


# ---- detectors -------------------------------------------------------------------------------------------------------


@dataclass
class Plain:
    """What most code bases do: lower case, ASCII punctuation out, split, n-grams as tuples in a set."""

    grams: set[tuple[str, ...]]
    size: int

    @classmethod
    def of(cls, items: Iterable[BenchmarkItem], size: int) -> Plain:
        """Index the questions."""
        found = cls(set(), size)
        for item in items:
            found.grams.update(found.cut(item.question))
        return found

    def cut(self, text: str) -> Iterator[tuple[str, ...]]:
        """The text's n-grams."""
        words = text.lower().translate(_NO_PUNCTUATION).split()
        return zip(*(words[at:] for at in range(self.size)), strict=False)

    def __call__(self, texts: Sequence[str]) -> list[bool]:
        """Which texts share an n-gram with an item."""
        return [not self.grams.isdisjoint(self.cut(text)) for text in texts]


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def ours(benchmarks: dict[str, list[BenchmarkItem]], spec: Decontaminate) -> Scan:
    """The lab's detector as a scan."""
    detector = Detector([build(name, items, spec.method) for name, items in benchmarks.items()], spec)
    return lambda texts: [bool(found) for found in detector.search(texts)]


def detectors(benchmarks: dict[str, list[BenchmarkItem]]) -> dict[str, Scan]:
    """The lab's two and the two peers, on the same items."""
    every = [item for items in benchmarks.values() for item in items]
    return {
        "coverage": ours(benchmarks, Decontaminate()),
        "ngram13": ours(benchmarks, Decontaminate(method="ngram13")),
        "plain 13-gram": Plain.of(every, 13),
        "plain 8-gram": Plain.of(every, 8),
    }


# ---- measurements ----------------------------------------------------------------------------------------------------


def rate(found: int, of: int) -> dict[str, float]:
    """A share with its exact 95 % interval (Clopper and Pearson 1934)."""
    interval = binomtest(found, of).proportion_ci(0.95, "exact")
    return {"found": found, "of": of, "share": round(found / of, 5), "low": round(float(interval.low), 5), "high": round(float(interval.high), 5)}  # fmt: skip


def speed(scan: Scan, documents: Sequence[str]) -> float:
    """MB per CPU-second, the better of two passes."""
    size = sum(len(text.encode()) for text in documents) / 1e6
    times = []
    for _ in range(2):
        begun = time.process_time()
        scan(documents)
        times.append(time.process_time() - begun)
    return round(size / min(times), 2)


def injected(kind: str, benchmarks: dict[str, list[BenchmarkItem]], documents: Sequence[str], count: int) -> list[str]:
    """`count` documents with a variant each, the same ones every time; none where no item is eligible."""
    rng = random.Random(f"{kind} 1")
    words = vocabulary(documents[:200])
    pools = [pool for pool in (eligible(kind, items) for items in benchmarks.values()) if pool]
    made = []
    for _ in range(count if pools else 0):
        item = rng.choice(rng.choice(pools))
        made.append(inject(rng, rng.choice(documents), VARIANTS[kind](rng, item.question, words)))
    return made


def measure(
    benchmarks: dict[str, list[BenchmarkItem]], documents: Sequence[str], injections: int, near: int
) -> dict[str, dict[str, Any]]:
    """Everything, by detector."""
    every = [item for items in benchmarks.values() for item in items]
    misses = {"clean": list(documents), "other numbers": near_misses(random.Random(2), every, near)}
    if "gsm_symbolic" in benchmarks:
        misses["siblings"] = siblings(benchmarks["gsm_symbolic"], near)
    made = {kind: injected(kind, benchmarks, documents, injections) for kind in VARIANTS}
    return {
        name: {
            "mb_per_cpu_second": speed(scan, documents),
            "recall": {kind: rate(sum(scan(texts)), len(texts)) for kind, texts in made.items() if texts},
            "false_positives": {kind: rate(sum(scan(texts)), len(texts)) for kind, texts in misses.items() if texts},
        }
        for name, scan in detectors(benchmarks).items()
    }


def table(name: str, report: dict[str, dict[str, Any]]) -> str:
    """The report as text: a detector a column."""
    lines = [f"\n{name:28}" + "".join(f"{detector:>24}" for detector in report)]
    lines.append(f"{'MB per CPU-second':28}" + "".join(f"{one['mb_per_cpu_second']:>24}" for one in report.values()))
    for part, label in (("recall", ""), ("false_positives", "false positives: ")):
        for kind in next(iter(report.values()))[part]:
            cells = [one[part][kind] for one in report.values()]
            lines.append(f"{label + kind:28}" + "".join(f"{_cell(cell):>24}" for cell in cells))
    return "\n".join(lines)


def _cell(share: dict[str, float]) -> str:
    return f"{share['share']:.4f} [{share['low']:.4f}, {share['high']:.4f}]"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench.data.contamination", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--half", choices=HALVES, default="report", help="what was tuned on, or what was not")
    parser.add_argument("--only", default="", help="one of the sets of items, by the name in the tables")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--injections", type=int, default=300, help="documents of each kind of variant")
    parser.add_argument("--clean", type=int, default=6000, help="documents without an item, of 3,000 characters")
    parser.add_argument("--near", type=int, default=2000, help="near-misses of each kind")
    parser.add_argument("--items", type=int, default=300, help="items of each generator")
    return parser


def main() -> None:
    """Measure on public benchmarks, word problems and bare templates, each apart."""
    chosen = arguments().parse_args()
    documents = chunks(chosen.clean)
    seed = HALVES.index(chosen.half)
    sets: dict[str, Callable[[], dict[str, list[BenchmarkItem]]]] = {
        "public benchmarks": lambda: {name: half(items, chosen.half) for name, items in real_items().items()},
        "word problems": lambda: word_problems(chosen.items, GENERATORS, seed),
        "bare templates": lambda: word_problems(chosen.items, BARE, seed),
        "unseen problems": lambda: word_problems(chosen.items, UNSEEN[chosen.half]),
        "fresh problems": lambda: fresh(chosen.items),
        "unseen templates": lambda: word_problems(chosen.items, half(UNSEEN_BARE, chosen.half)),
    }
    result: dict[str, Any] = {"documents": len(documents), "megabytes": sum(len(t.encode()) for t in documents) / 1e6}
    for name, make in sets.items():
        benchmarks = make() if chosen.only in ("", name) else {}
        if not benchmarks:
            continue
        report = measure(benchmarks, documents, chosen.injections, chosen.near)
        result[name] = {"items": {key: len(items) for key, items in benchmarks.items()}, "detectors": report}
        if not chosen.json:
            print(table(name, report), flush=True)
    if chosen.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
