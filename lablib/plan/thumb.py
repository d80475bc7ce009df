"""The guide's rule of thumb for choosing a strategy by model size (§8.4), as rows of a layout search.

Plain DDP below 1B parameters, FSDP with selective recomputation to 13B, FSDP and tensor parallelism within a node to
70B, all of TP, PP and DP beyond; a mixture of experts also takes expert parallelism.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lablib.plan.candidates import Columns
from lablib.plan.params import count
from lablib.specs import Cluster, ModelSpec

NEAR = 1.1
"""Sizes are nominal: the guide's "13B" and "70B" mean models named so, which have up to a tenth more parameters."""


class Rule(NamedTuple):
    """One line of the guide's table."""

    below: float
    """Parameters up to which it holds."""
    words: str
    allows: Callable[[Columns, Cluster], np.ndarray]
    """Which rows obey it."""
    recompute: str | None = None
    """The policy it names; None where it names none."""


def _alone(columns: Columns) -> np.ndarray:
    return (columns["tp"] == 1) & (columns["pp"] == 1) & (columns["cp"] == 1)


def _ddp(columns: Columns, cluster: Cluster) -> np.ndarray:
    return _alone(columns) & (columns["dp_shard"] == 1)


def _fsdp(columns: Columns, cluster: Cluster) -> np.ndarray:
    return _alone(columns) & (columns["dp_replicate"] == 1)


def _within_node(columns: Columns, cluster: Cluster) -> np.ndarray:
    tp = np.isin(columns["tp"], (2, 4, 8)) & (columns["tp"] <= cluster.scaleup_domain)
    return tp & (columns["pp"] == 1) & (columns["cp"] == 1) & (columns["dp_replicate"] == 1)


def _three_ways(columns: Columns, cluster: Cluster) -> np.ndarray:
    return (columns["tp"] > 1) & (columns["tp"] <= cluster.scaleup_domain) & (columns["pp"] > 1) & (columns["cp"] == 1)


RULES = (
    Rule(1e9, "under 1B: plain DDP", _ddp),
    Rule(13e9 * NEAR, "1B to 13B: FSDP with selective activation checkpointing", _fsdp, "selective"),
    Rule(70e9 * NEAR, "13B to 70B: FSDP and tensor parallelism within a node", _within_node),
    Rule(float("inf"), "over 70B: tensor, pipeline and data parallelism", _three_ways),
)


def rule_for(model: ModelSpec) -> Rule:
    """The line of the table that speaks of a model of this size; with experts, expert parallelism is added to it."""
    total = count(model).total
    rule = next(rule for rule in RULES if total < rule.below)
    if model.moe is None:
        return rule

    def allows(columns: Columns, cluster: Cluster) -> np.ndarray:
        return rule.allows(columns, cluster) & (columns["ep"] > 1)

    return rule._replace(words=f"{rule.words}; experts: add expert parallelism", allows=allows)
