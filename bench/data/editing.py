"""Steps that edit, and the list of profane words: speed, and what repeated passages are beside a plain search for them.

    python -m bench.data.editing [--mb 10] [--json]

Text is what the packages of this environment hold. Speeds are MB of UTF-8 per CPU-second, all threads counted, each from
texts to edited texts. The plain search keeps every run of 50 words as a tuple in a dictionary and finds the same ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, get_args

from bench.data.quality import installed, megabytes, speed
from lablib.data.dedup import RepeatedText
from lablib.data.dedup.shingles import normalised
from lablib.data.documents import Document
from lablib.data.quality import profanity, scrub
from lablib.specs import Repeats

LEAST = 2
WORD = re.compile(r"[^\W_]+")


def repeated(documents: Sequence[Document], unit: str) -> dict[str, Any]:
    """Finding and taking out, with the sieve, of what at least two documents share."""
    step = RepeatedText(Repeats(unit=unit, least=LEAST))
    left: list[str] = []
    size = sum(len(one.text.encode()) for one in documents)

    def work() -> None:
        found = step.find(documents, step.sieve(documents, size))
        left.extend(step.strip(document, found).text for document in documents)

    rate, before = speed(work, megabytes(list(documents))), sum(len(one.text) for one in documents)
    return {"mb_per_cpu_s": rate, "characters_taken_out": round(1 - sum(map(len, left)) / before, 4)}


def plain(documents: Sequence[Document]) -> dict[str, Any]:
    """Runs of 50 words in at least two documents, by a dictionary of tuples."""
    holders: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)

    def work() -> None:
        for number, document in enumerate(documents):
            words = WORD.findall(normalised(document.text))
            for run in zip(*(words[at:] for at in range(50)), strict=False):
                holders[run].add(number)

    rate = speed(work, megabytes(list(documents)))
    return {"mb_per_cpu_s": rate, "windows": sum(len(found) >= LEAST for found in holders.values())}


def bench(size: float) -> dict[str, Any]:
    """All figures by name."""
    documents = installed(size * 1e6)
    texts = [document.text for document in documents]
    few = installed(min(size, 1) * 1e6)
    step = RepeatedText(Repeats(unit="passage", least=LEAST))
    listed = profanity.lexicon()
    listed.shares(texts[:10])
    return {
        "mb": round(megabytes(documents), 1),
        "load": round(os.getloadavg()[0], 1),
        "scrub": {"mb_per_cpu_s": speed(lambda: [scrub(text) for text in texts], megabytes(documents))},
        "profanity": {"mb_per_cpu_s": speed(lambda: listed.shares(texts), megabytes(documents))},
        **{unit: repeated(documents, unit) for unit in get_args(Repeats.model_fields["unit"].annotation)},
        "passages of 1 MB": {"ours": repeated(few, "passage"), "windows": len(step.find(few)), "plain": plain(few)},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    print(json.dumps(bench(asked.mb), indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
