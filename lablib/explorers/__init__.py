"""Screens declared once: what-ifs (`Explorer`) and the monitor of a run, both as a pure `View`."""

from lablib.explorers.accuracy import Accuracy
from lablib.explorers.budget import BudgetPlan
from lablib.explorers.explorer import Explorer, knob
from lablib.explorers.funnel import FunnelPlan
from lablib.explorers.layouts import LayoutPlan
from lablib.explorers.memory import MemoryPlan
from lablib.explorers.midtrain import MidtrainPlan
from lablib.explorers.mini import MiniPlan
from lablib.explorers.mixture import MixturePlan
from lablib.explorers.monitor import Monitor
from lablib.explorers.prepared import DataFlow, DataSamples
from lablib.explorers.s_curve import SCurve
from lablib.explorers.synthetic import Synthetic
from lablib.explorers.view import Headline, Status, Table, View
from lablib.explorers.vocabulary import VocabularyPlan
from lablib.explorers.written import Written

__all__ = [
    "Accuracy",
    "BudgetPlan",
    "DataFlow",
    "DataSamples",
    "Explorer",
    "FunnelPlan",
    "Headline",
    "LayoutPlan",
    "MemoryPlan",
    "MidtrainPlan",
    "MiniPlan",
    "MixturePlan",
    "Monitor",
    "SCurve",
    "Status",
    "Synthetic",
    "Table",
    "View",
    "VocabularyPlan",
    "Written",
    "knob",
]
