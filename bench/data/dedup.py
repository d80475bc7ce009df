"""Near-duplicate removal beside its peers: speed, precision and recall on the same real text with planted copies.

    python -m bench.data.dedup [--mb 30] [--threshold 0.7] [--peers FOLDER] [--json]

Text: Python sources and pages of the installed packages, every fourth with a copy in which a share of the words was
replaced. Truth: all pairs of documents by exact Jaccard of their 5-word shingles, made from Python's own words and a sparse
product, which has no code in common with what is measured. Speed is MB of text per CPU-second of this process, all threads
counted; ratios are of one run. datatrove, which is slow, gets the first `--slow-mb`, and so do we for that ratio.

  precision  share of the documents that go which have another one at or above the threshold
  recall     share of the pairs at or above threshold + 0.1 of which not both stay

Peers are looked for in the environment and, before it, in `--peers`, a site-packages folder: datatrove 0.10.1 needs
xxhash below 4. One that is missing is named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import random
import re
import site
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from lablib.data.dedup import near_duplicates, shingles, theory
from lablib.data.documents import Document
from lablib.specs import paths
from lablib.specs.dedup import Dedup
from lablib.specs.memory import peak_gib

NGRAM = 5
RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
"""Shares of words replaced in the planted copies."""
SHORTEST, LONGEST = 500, 60_000
"""Characters of the documents that are taken."""
WARM = 5
"""Documents that each tool is given before it is timed, and one that is not ASCII: tables made once are not counted."""
WORD = re.compile(r"[^\W_]+")


@dataclass
class Text:
    """What every tool is given."""

    texts: list[str]
    planted: list[tuple[int, int, float]]
    """(Original, copy, share of words replaced), as places in `texts`."""

    @property
    def mb(self) -> float:
        """10^6 bytes of UTF-8."""
        return sum(len(text.encode()) for text in self.texts) / 1e6

    def first(self, mb: float) -> Text:
        """The documents at the front, with the copies whose originals are there."""
        ends = np.cumsum([len(text.encode()) for text in self.texts])
        number = int(np.searchsorted(ends, mb * 1e6)) + 1
        return Text(self.texts[:number], [one for one in self.planted if max(one[:2]) < number])


def installed_text(mb: float) -> Text:
    """Sources and pages of the installed packages with planted copies, shuffled by a fixed seed."""
    rng = random.Random(0)
    files = [path for folder in site.getsitepackages() for path in Path(folder).rglob("*") if path.suffix in (".py", ".md", ".rst", ".txt")]  # fmt: skip
    texts: dict[str, tuple[int, float]] = {}
    size = 0
    for path in sorted(files, key=lambda path: random.Random(str(path)).random()):
        text = path.read_text(encoding="utf-8", errors="replace")
        if not SHORTEST <= len(text) <= LONGEST or text in texts:
            continue
        number = len(texts)
        texts[text] = (-1, 0.0)
        size += len(text.encode())
        if number % 4 == 0:
            rate = rng.choice(RATES)
            copy = edited(text, rate, rng)
            texts.setdefault(copy, (number, rate))
            size += len(copy.encode())
        if size >= mb * 1e6:
            break
    return _without_order(texts)


def _without_order(texts: dict[str, tuple[int, float]]) -> Text:
    """Each copy stays near its original, so that the front of the corpus holds pairs too; which comes first is drawn."""
    rng, listed = random.Random(1), list(texts.items())
    order = sorted(range(len(listed)), key=lambda at: (at + rng.choice((-1.5, 1.5)), at))
    place = {at: new for new, at in enumerate(order)}
    planted = [(place[of], place[at], rate) for at, (_, (of, rate)) in enumerate(listed) if of >= 0]
    return Text([listed[at][0] for at in order], planted)


def edited(text: str, rate: float, rng: random.Random) -> str:
    """Each word replaced with probability `rate` by a new one."""
    return WORD.sub(lambda word: f"n{rng.getrandbits(40):x}" if rng.random() < rate else word[0], text)


# -- truth ------------------------------------------------------------------------------------------------------------


def reference_words(text: str) -> list[str]:
    """Runs of letters and digits after NFKC and casefold, by Python's own tables."""
    return WORD.findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def similar_pairs(texts: Sequence[str], least: float) -> dict[tuple[int, int], float]:
    """(i, j) with i < j → exact Jaccard similarity, of all pairs that reach `least`."""
    sets = []
    for text in texts:
        words = reference_words(text)
        grams = zip(*(words[at:] for at in range(NGRAM)), strict=False) if len(words) >= NGRAM else [tuple(words)]
        sets.append(np.unique(np.fromiter(map(hash, grams), np.int64)))
    _, column = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(one) for one in sets])
    table = sparse.csr_matrix((np.ones(len(column), np.int32), column, np.concatenate([[0], np.cumsum(sizes)])))
    table = table[:, np.flatnonzero(np.diff(table.tocsc().indptr) > 1)]
    found = {}
    for begin in range(0, len(texts), 256):
        shared = (table[begin : begin + 256] @ table.T).tocoo()
        rows, columns = shared.row + begin, shared.col
        jaccard = shared.data / (sizes[rows] + sizes[columns] - shared.data)
        for at in np.flatnonzero((rows < columns) & (jaccard >= least)):
            found[int(rows[at]), int(columns[at])] = float(jaccard[at])
    return found


def scores(text: Text, gone: set[int], threshold: float) -> dict[str, Any]:
    """Precision and recall of the documents that go; see the head of this file."""
    pairs = similar_pairs(text.texts, threshold)
    near = {at for pair in pairs for at in pair}
    far = [pair for pair, jaccard in pairs.items() if jaccard >= threshold + 0.1 - 1e-12]
    by_rate = {}
    for rate in RATES:
        copies = [pair[:2] for pair in text.planted if pair[2] == rate]
        by_rate[f"{100 * rate:g} %"] = round(sum(not gone.isdisjoint(pair) for pair in copies) / max(1, len(copies)), 3)
    return {
        "gone": len(gone),
        "precision": round(len(gone & near) / max(1, len(gone)), 4),
        "recall": round(sum(not gone.isdisjoint(pair) for pair in far) / max(1, len(far)), 4),
        "pairs": len(far),
        "planted_by_words_changed": by_rate,
    }


# -- tools ------------------------------------------------------------------------------------------------------------

Tool = Callable[[Sequence[str]], set[int]]
"""Texts → places of those that go."""


def ours(spec: Dedup) -> Tool:
    """Verified, from text to verdicts, temporary files and SHA-256 included."""

    def run(texts: Sequence[str]) -> set[int]:
        documents = [Document("all", "bench", "", text) for text in texts]
        place = {document.sha256: at for at, document in enumerate(documents)}
        return {place[sha] for sha in near_duplicates(documents, spec)}

    return run


def rensa_alone(bands: int, rows: int) -> Tool:
    """rensa's own tokens-to-signature on Python shingles, banded by a dictionary, unverified."""
    rensa = importlib.import_module("rensa")

    def run(texts: Sequence[str]) -> set[int]:
        seen: set[tuple[Any, ...]] = set()
        gone = set()
        for at, text in enumerate(texts):
            words = WORD.findall(text.lower())
            grams = {" ".join(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}
            signature = rensa.RMinHash.digest_matrix_from_token_sets([grams], bands * rows, 1).to_rows()[0]
            mine = {(band, *signature[band * rows : (band + 1) * rows]) for band in range(bands)}
            gone |= set() if mine.isdisjoint(seen) else {at}
            seen |= mine
        return gone

    return run


def gaoya(bands: int, rows: int, estimate: float) -> Tool:
    """All in Rust; what it finds is checked against the signature's own estimate only."""
    minhash = importlib.import_module("gaoya.minhash")

    def run(texts: Sequence[str]) -> set[int]:
        index = minhash.MinHashStringIndex(32, estimate, bands, rows, None, "word", True, (NGRAM, NGRAM))
        gone = set()
        for at, text in enumerate(texts):
            if index.query(text):
                gone.add(at)
            index.insert_document(at, text)
        return gone

    return run


def datasketch(bands: int, rows: int) -> Tool:
    """Python shingles, NumPy signatures in bulk, unverified."""
    library = importlib.import_module("datasketch")

    def run(texts: Sequence[str]) -> set[int]:
        lsh = library.MinHashLSH(num_perm=bands * rows, params=(bands, rows))
        gone = set()
        for at, text in enumerate(texts):
            words = WORD.findall(text.lower())
            grams = {" ".join(words[i : i + NGRAM]).encode() for i in range(max(1, len(words) - NGRAM + 1))}
            signature = library.MinHash(num_perm=bands * rows)
            signature.update_batch(list(grams))
            if lsh.query(signature):
                gone.add(at)
            lsh.insert(at, signature)
        return gone

    return run


def datatrove(bands: int, rows: int) -> Tool:
    """Its four stages with one task in this process, the default normaliser, unverified."""
    blocks = importlib.import_module("datatrove.pipeline.dedup.minhash")
    data = importlib.import_module("datatrove.data")
    from datatrove.executor import LocalPipelineExecutor

    def stage(folder: Path, name: str, pipeline: list[Any], tasks: int = 1) -> None:
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()

    def run(texts: Sequence[str]) -> set[int]:
        config = blocks.MinhashConfig(n_grams=NGRAM, num_buckets=bands, hashes_per_bucket=rows)
        documents = [data.Document(text=text, id=str(at)) for at, text in enumerate(texts)]
        kept: list[Any] = []

        def keep(stream: Any, rank: int = 0, world_size: int = 1) -> Any:
            kept.extend(stream)
            yield from ()

        with tempfile.TemporaryDirectory() as name:
            at = Path(name)
            one, two, three = (str(at / part) for part in ("signatures", "buckets", "removed"))
            stage(at, "1", [documents, blocks.MinhashDedupSignature(one, config)])
            stage(at, "2", [blocks.MinhashDedupBuckets(one, two, config=config)], bands)
            stage(at, "3", [blocks.MinhashDedupCluster(two, three, config)])
            stage(at, "4", [documents, blocks.MinhashDedupFilter(three), keep])
        return set(range(len(texts))) - {int(document.id) for document in kept}

    return run


def measured(make: Callable[[], Tool], text: Text, threshold: float) -> dict[str, Any]:
    """MB per CPU-second with precision and recall, or why the tool is not there."""
    try:
        run = make()
    except ImportError as error:
        return {"missing": str(error)}
    run([*text.texts[:WARM], "naïve 漢字 " * 100])
    begun = time.process_time()
    gone = run(text.texts)
    seconds = time.process_time() - begun
    speed = {
        "mb_per_cpu_second": round(text.mb / seconds, 2),
        "documents_per_cpu_second": round(len(text.texts) / seconds),
    }
    return {**speed, **scores(text, gone, threshold)}


# -- the bench --------------------------------------------------------------------------------------------------------


def parts(text: Text, spec: Dedup) -> dict[str, float]:
    """MB per CPU-second of our shingling alone."""
    begun = time.process_time()
    for at in range(0, len(text.texts), 128):
        shingles.shingle_sets(text.texts[at : at + 128], spec.ngram)
    return {"shingle_sets": round(text.mb / (time.process_time() - begun), 1)}


def bench(mb: float, slow_mb: float, threshold: float) -> dict[str, Any]:
    """Everything that is printed."""
    text, spec = installed_text(mb), Dedup(threshold=threshold, ngram=NGRAM)
    short, (bands, rows) = text.first(slow_mb), spec.banding
    tools = {
        f"ours {bands}x{rows}, verified": measured(lambda: ours(spec), text, threshold),
        f"gaoya {bands}x{rows}, estimate {threshold:g}": measured(
            lambda: gaoya(bands, rows, threshold), text, threshold
        ),
        "gaoya 14x8, estimate 0.5": measured(lambda: gaoya(14, 8, 0.5), text, threshold),
        f"rensa {bands}x{rows}, unverified": measured(lambda: rensa_alone(bands, rows), text, threshold),
        f"datasketch {bands}x{rows}, unverified": measured(lambda: datasketch(bands, rows), text, threshold),
    }
    slow = {
        f"ours {bands}x{rows}, verified": measured(lambda: ours(spec), short, threshold),
        "datatrove 14x8, unverified": measured(lambda: datatrove(14, 8), short, threshold),
    }
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)},
        "versions": {name: _version(name) for name in ("rensa", "gaoya", "datasketch", "datatrove", "numpy")},
        "text": {"mb": round(text.mb, 1), "documents": len(text.texts), "planted": len(text.planted)},
        "settings": {"threshold": threshold, "ngram": NGRAM, "bands": bands, "rows": rows},
        "theory_recall_at_t_plus_0.1": round(float(theory.catch(threshold + 0.1, bands, rows)), 4),
        "parts": parts(text, spec),
        "tools": tools,
        "slow": {"mb": round(short.mb, 1), "tools": slow},
        "ratios": {**_ratios(tools), **_ratios(slow)},
        "peak_mib": round(peak_gib() * 1024),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _ratios(tools: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Our speed over each peer's."""
    mine, *others = tools.items()
    speed = mine[1]["mb_per_cpu_second"]
    return {f"over {name}": round(speed / one["mb_per_cpu_second"], 2) for name, one in others if "missing" not in one}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=30, help="text for the quick tools")
    parser.add_argument("--slow-mb", type=float, default=5, help="text for datatrove")
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--peers", type=Path, help="a site-packages folder with gaoya, datasketch or datatrove")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.peers:
        sys.path.insert(0, str(asked.peers))
    paths.home().mkdir(parents=True, exist_ok=True)
    result = bench(asked.mb, asked.slow_mb, asked.threshold)
    if asked.json:
        print(json.dumps(result, indent=1))
        return
    print(json.dumps({name: value for name, value in result.items() if name not in ("tools", "slow")}, indent=1))
    for name, one in [*result["tools"].items(), *result["slow"]["tools"].items()]:
        told = one.get("missing") or f"{one['mb_per_cpu_second']:8.2f} MB/cpu-s  precision {one['precision']:.3f}  recall {one['recall']:.4f}  {one['planted_by_words_changed']}"  # fmt: skip
        print(f"{name:36}{told}")


if __name__ == "__main__":
    main()
