"""Which documents are used, and for what: decided by each document's own hash, so that order and machine cannot matter."""

from __future__ import annotations

from collections.abc import Iterator

from lablib.data.corpus import Corpus

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
    if max_bytes is None or corpus.bytes(domain) <= max_bytes:
        return None
    sizes = {document.sha256: len(document.text.encode()) for document in corpus.documents(domain)}
    chosen: set[str] = set()
    used = 0
    for sha256 in sorted(sizes, key=priority):
        if chosen and used + sizes[sha256] > max_bytes:
            break
        chosen.add(sha256)
        used += sizes[sha256]
    return chosen


def quotas(corpus: Corpus, max_bytes: float | None) -> dict[str, float | None]:
    """Each domain's part of a cap on the whole corpus, in proportion to its size."""
    total = sum(corpus.bytes(domain) for domain in corpus.domains)
    return {
        domain: None if max_bytes is None else max_bytes * corpus.bytes(domain) / total for domain in corpus.domains
    }


def sample(corpus: Corpus, domain: str, max_bytes: float, heldout: float) -> Iterator[str]:
    """Training texts of a domain, at most `max_bytes`, in order of their hash: the same for any order of reading."""
    chosen = select(corpus, domain, max_bytes)
    found = {
        document.sha256: document.text
        for document in corpus.documents(domain)
        if (chosen is None or document.sha256 in chosen) and split_of(document.sha256, heldout) == "train"
    }
    yield from (found[sha256] for sha256 in sorted(found))
