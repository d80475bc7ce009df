"""Which documents stay: proposed pairs are verified exactly, and the first of each family in a fixed order stays.

Documents are taken in the order of (priority, SHA-256). One goes only if it is verified to be similar to a document that
stays; so of a chain A ~ B ~ C whose ends differ, A and C stay and B goes. Nothing depends on the order of reading.
A family whose members go costs a comparison each. One whose members all stay, similar enough to be proposed but below the
threshold, costs a comparison for each pair of them: 20 µs for documents of 600 words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lablib.data.dedup.shingles import Hashes, Ints
from lablib.data.dedup.sketches import Sketches
from lablib.specs.dedup import Dedup


def jaccard(one: Hashes, other: Hashes) -> float:
    """Exact Jaccard similarity of two sets given as sorted distinct hashes; 0 where one is empty."""
    if not len(one) or not len(other):
        return 0.0
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    places = np.minimum(np.searchsorted(long, short), len(long) - 1)
    shared = int(np.count_nonzero(long[places] == short))
    return shared / (len(one) + len(other) - shared)


def ranked(known: Sketches, spec: Dedup) -> Ints:
    """Indices of the documents from the one that stays first: by preferred domain, by length, by SHA-256."""
    preferred = {name: place for place, name in enumerate(spec.prefer)}
    places = np.array([preferred.get(name, len(preferred)) for name in known.names], dtype=np.int64)
    length = known.lengths * {"longest": -1, "shortest": 1, "any": 0}[spec.keep]
    marks = [known.marks[:, column] for column in (3, 2, 1, 0)]
    return np.lexsort([*marks, length, places[known.domains]])


def fallen(known: Sketches, spec: Dedup) -> dict[int, int]:
    """Document that goes → document that stays instead of it, as indices of `known`."""
    order = ranked(known, spec)
    documents, groups = shared_buckets(known.bands, order[np.diff(known.shingles.offsets)[order] > 0])
    similar = _verifier(known, spec.threshold)
    standing: defaultdict[int, list[int]] = defaultdict(list)
    gone: dict[int, int] = {}
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ends = np.flatnonzero(np.diff(documents, prepend=-1, append=-1)).tolist()
    for begin, end in pairwise(ends):
        document, shared = int(documents[begin]), groups[begin:end].tolist()
        rivals = sorted({rival for group in shared for rival in standing.get(group, ())}, key=place.__getitem__)
        stays = next((rival for rival in rivals if similar(document, rival)), None)
        if stays is not None:
            gone[document] = stays
            continue
        for group in shared:
            standing[group].append(document)
    return gone


def shared_buckets(bands: Hashes, order: Ints) -> tuple[Ints, NDArray[np.int64]]:
    """(Documents, buckets): who is in which bucket of at least two, by document in the given order.

    One band's column is held at a time; documents that are alone everywhere leave nothing.
    """
    places, buckets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    number = 0
    for band in range(bands.shape[1]):
        column = np.ascontiguousarray(bands[:, band])[order]
        sort = np.argsort(column, kind="stable")
        column = column[sort]
        fresh = np.ones(len(column), bool)
        fresh[1:] = column[1:] != column[:-1]
        group = np.cumsum(fresh) - 1
        crowded = np.bincount(group, minlength=1)[group] > 1
        places.append(sort[crowded])
        buckets.append(group[crowded] + number)
        number += len(column)
    place, bucket = np.concatenate(places), np.concatenate(buckets)
    sort = np.argsort(place, kind="stable")
    return order[place[sort]], bucket[sort]


def _verifier(known: Sketches, threshold: float) -> Callable[[int, int], bool]:
    """Whether two documents reach the threshold; two of one text are the same document, not copies."""
    sizes = np.diff(known.shingles.offsets)

    def similar(one: int, other: int) -> bool:
        small, large = sorted((sizes[one], sizes[other]))
        if small < threshold * large - 1e-9 or (known.marks[one] == known.marks[other]).all():
            return False
        return jaccard(known.shingles[one], known.shingles[other]) >= threshold

    return similar


def verdicts(known: Sketches, gone: Mapping[int, int]) -> dict[str, str]:
    """SHA-256 of each document that goes, with the reason."""
    return {known.sha256(one): f"near-duplicate [{known.sha256(other)[:12]}]" for one, other in sorted(gone.items())}
