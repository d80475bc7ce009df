"""The parts of a report, one a file, in the order of the page. Each is a pure function of the record."""

from __future__ import annotations

from collections.abc import Callable

from lablib.report.record import Record
from lablib.report.section import Section
from lablib.report.sections.data import data_card
from lablib.report.sections.evaluation import evaluation
from lablib.report.sections.failures import failures
from lablib.report.sections.limits import limits
from lablib.report.sections.outcome import outcome
from lablib.report.sections.plan import plan
from lablib.report.sections.provenance import provenance
from lablib.report.sections.rerun import rerun
from lablib.report.sections.samples import samples
from lablib.report.sections.synthetic import synthetic
from lablib.report.sections.training import training

SECTIONS: tuple[Callable[[Record], Section], ...] = (
    plan,
    outcome,
    training,
    data_card,
    synthetic,
    evaluation,
    samples,
    failures,
    limits,
    provenance,
    rerun,
)
