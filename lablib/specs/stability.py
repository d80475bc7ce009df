"""What a training run does about a loss spike."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lablib.specs.base import Spec


class Stability(Spec):
    """The spike playbook: notice, rewind about 100 steps, skip the data, then lower the rate, then one layer's attention in fp32.

    The defaults are meant never to touch an ordinary run. `max_rewinds=0` only refuses a loss that is not finite.
    """

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"max_rewinds", "recheck"})
    """Fields that do not change what experiment it is: a run that has failed can go on with others."""

    window: int = Field(default=128, ge=16)
    """Steps that "ordinary" is judged by (OLMo-core's SkipStepOptimizer: 128)."""
    deviations: float = Field(default=6.0, gt=0)
    """Robust standard deviations above the ordinary that surprise (OLMo-core's SkipStepOptimizer: 6)."""
    patience: int = Field(default=3, gt=0)
    """Surprising steps in a row that make a spike: a single odd batch is left to gradient clipping."""
    rewind: int = Field(default=100, gt=0)
    """Steps to go back from the first surprising one, to the nearest checkpoint (PaLM, arXiv 2204.02311 §5.1: about 100)."""
    skip: int = Field(default=10, ge=0)
    """Steps' worth of data passed over on each side of the surprising steps; twice as many each time that the spike recurs."""
    reduce: float = Field(default=0.8, gt=0, le=1)
    """Factor for the peak learning rate each time that the spike recurs."""
    max_rewinds: int = Field(default=8, ge=0)
    """Rewinds of a whole run, after which it fails."""
    recheck: bool = True
    """Compute a surprising step twice: another result is the hardware's fault."""
