"""What repeated data is worth: the data-constrained scaling law (Muennighoff et al., arXiv 2305.16264).

D' = U + U·R*·(1 - exp(-R/R*)): U unique tokens read, R = D/U - 1 repetitions, R* = 15.387756 fitted on C4. Four epochs are
worth nearly as much as new data, at R = R* a repetition has lost 1 - 1/e of its value, and no number of repetitions makes
more than U·(1 + R*). The law is for one corpus; for a mixture it is applied to each domain, which is our extension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lablib.specs import LabError

DECAY_EPOCHS = 15.387756
"""R_D*: repetitions after which one is worth 1/e of new data (arXiv 2305.16264)."""
WORTHWHILE_EPOCHS = 4.0
"""Up to here repeats are nearly as good as new data (arXiv 2305.16264)."""


def effective_tokens(tokens: float, unique: float, decay: float = DECAY_EPOCHS) -> float:
    """New tokens that `tokens` read from a pool of `unique` ones are worth. Raises `LabError` below 0."""
    if tokens < 0 or unique < 0 or (tokens > 0 and unique == 0):
        raise LabError(f"tokens={tokens}, unique={unique}: neither is negative, and nothing can be read from nothing")
    if tokens <= unique:
        return float(tokens)
    return unique + unique * decay * -math.expm1(-(tokens / unique - 1) / decay)


def value_of_an_epoch(number: float, decay: float = DECAY_EPOCHS) -> float:
    """What reading on in the `number`-th epoch is worth, as a share of new data: the derivative of D' in D."""
    return math.exp(-max(0.0, number - 1) / decay)


def effective_by_domain(
    weights: Mapping[str, float], tokens: float, available: Mapping[str, float]
) -> dict[str, float]:
    """Domain → what its share of a run of `tokens` is worth in new tokens."""
    return {name: effective_tokens(tokens * w, available.get(name, 0.0)) for name, w in weights.items() if w > 0}
