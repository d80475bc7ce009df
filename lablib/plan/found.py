"""What a layout search found: a table of candidates in order, each with its figures and the reason where it loses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lablib.plan import listing, step, thumb
from lablib.plan.candidates import FIELDS, Columns, join, select
from lablib.plan.conventions import TRAINING
from lablib.plan.memory import MARGIN
from lablib.plan.params import count
from lablib.plan.sweep import CAUSES, Settings, jobs
from lablib.specs import Cluster, LabError, ModelSpec, Optimizer, Parallelism, Pretrain
from lablib.specs.units import parse_count

if TYPE_CHECKING:
    import pandas as pd

FINE, FULL, NO_RATE = -1, -2, -3
"""Reasons that are none, too little memory, an unknown rate; others are numbers of `Table.why`."""
KERNELS = ("compute", "attention", "elementwise", "launch")
"""Causes that recomputation, small matmuls or other precisions change."""
WORDS = {
    "tp": "tensor-parallel communication", "cp": "context-parallel communication", "ep": "expert all-to-all", "pp": "pipeline sends",
    "dp": "data-parallel communication", "bubble": "pipeline bubble", "optimizer": "optimiser step",
}  # fmt: skip
