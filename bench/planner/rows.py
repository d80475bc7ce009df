"""What the field files need of a row: its numbers, its model and its accelerator."""

from bench.planner.devices import accelerator_of
from bench.planner.shapes import model_of
from bench.planner.table import Problem, Row, Scored, Unplannable, read, real, whole, with_archs

__all__ = [
    "Problem",
    "Row",
    "Scored",
    "Unplannable",
    "accelerator_of",
    "model_of",
    "read",
    "real",
    "whole",
    "with_archs",
]
