"""Which documents are used, and for what: decided by each document's own hash, so that order and machine cannot matter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lablib.data.corpus import Corpus
from lablib.data.documents import Report, silent

SPLITS = ("train", "heldout")


def split_of(sha256: str, heldout: float) -> str:
    """``heldout`` for that share of documents (the first 64 bits of the hash, read as a fraction), else ``train``.

    A larger share only adds documents to the held-out split.
    """
    return "heldout" if int(sha256[:16], 16) < heldout * 2**64 else "train"


def priority(sha256: str) -> str:
    """The order in which documents are taken under a cap; independent of the split, which reads other bits."""
    return sha256[32:]


def select(corpus: Corpus, domain: str, max_bytes: float | None) -> set[str] | None:
    """Hashes of a domain's documents that together hold at most `max_bytes`; None stands for all of them.

    Documents come in order of `priority`, so that a larger cap only adds documents. The first one is always taken.
    """
    last = bound(corpus, domain, max_bytes)
    if last is None:
        return None
    return {name for name in map(_hex, corpus.index(domain)["sha256"]) if priority(name) <= last}


def bound(corpus: Corpus, domain: str, max_bytes: float | None) -> str | None:
    """The `priority` of the last document that a cap takes; None where it takes all. Holds some 80 bytes a document."""
    if max_bytes is None or corpus.bytes(domain) <= max_bytes:
        return None
    index = corpus.index(domain)
    keys = np.ascontiguousarray(index["sha256"][:, 16:]).view(">u8")
    order = np.lexsort([keys[:, 1], keys[:, 0]])
    taken = int(np.searchsorted(np.cumsum(index["bytes"][order]), max_bytes, side="right"))
    return priority(_hex(index["sha256"][order[max(taken, 1) - 1]]))


def _hex(mark: NDArray[np.uint8]) -> str:
    return mark.tobytes().hex()


def quotas(corpus: Corpus, max_bytes: float | None) -> dict[str, float | None]:
    """Each domain's part of a cap on the whole corpus, in proportion to its size."""
    total = sum(corpus.bytes(domain) for domain in corpus.domains)
    return {
        domain: None if max_bytes is None else max_bytes * corpus.bytes(domain) / total for domain in corpus.domains
    }


def sample(corpus: Corpus, domain: str, max_bytes: float, heldout: float) -> Iterator[str]:
    """Training texts of a domain, at most `max_bytes`, in order of their hash: the same for any order of reading."""
    found = training(corpus, domain, bound(corpus, domain, max_bytes), heldout)
    yield from (found[sha256] for sha256 in sorted(found))


def training(corpus: Corpus, domain: str, last: str | None, heldout: float, report: Report = silent) -> dict[str, str]:
    """SHA-256 and text of the training documents that a cap with this `bound` takes; `report` hears how many."""
    names = map(_hex, corpus.index(domain)["sha256"])
    wanted = [taken(name, last) and split_of(name, heldout) == "train" for name in names]
    found: dict[str, str] = {}
    for document in corpus.documents(domain, wanted):
        found[document.sha256] = document.text
        report(len(found), len(wanted))
    return found


def taken(sha256: str, last: str | None) -> bool:
    """Whether a cap with this `bound` takes a document."""
    return last is None or priority(sha256) <= last
