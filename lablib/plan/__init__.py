"""What a recipe takes, before it runs: parameters, FLOPs, memory, time, money. No torch; imports in a blink."""

from lablib.plan.calibrate import calibrate
from lablib.plan.efficiency import Efficiency
from lablib.plan.estimate import Estimate, estimate
from lablib.plan.flops import Flops
from lablib.plan.forecast import Forecast, forecast
from lablib.plan.goodput import Goodput
from lablib.plan.laws import EPOCH, HOFFMANN, Law
from lablib.plan.memory import Memory
from lablib.plan.params import Params
from lablib.plan.params import count as count_params
from lablib.plan.ranges import Range

__all__ = [
    "EPOCH",
    "HOFFMANN",
    "Efficiency",
    "Estimate",
    "Flops",
    "Forecast",
    "Goodput",
    "Law",
    "Memory",
    "Params",
    "Range",
    "calibrate",
    "count_params",
    "estimate",
    "forecast",
]
