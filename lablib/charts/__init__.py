"""Charts: frames in, `Figure` out. One theme, no state, no files read."""

from lablib.charts import sample as sample
from lablib.charts.accuracy import accuracy
from lablib.charts.bars import memory_parts, plan_vs_actual, shares, sweep
from lablib.charts.bundle import bundle, svg
from lablib.charts.coordinates import coordinates
from lablib.charts.curves import grad_norm, learning_rate, loss, memory, metric, rate_over_tokens, reward, speed
from lablib.charts.figure import Figure
from lablib.charts.funnel import funnel, rules
from lablib.charts.heat import cells, heat
from lablib.charts.laws import laws
from lablib.charts.mixture import epochs_by_domain, loss_by_domain, mixture_over_training, mixture_read
from lablib.charts.s_curve import edit_curve, s_curve
from lablib.charts.sample import Frame, columns, series, smooth, thin, to_rows
from lablib.charts.scores import scores
from lablib.charts.synthetic import cap_curve, generation_diversity, generations, written
from lablib.charts.trade_off import trade_off
from lablib.charts.vocabulary import fertility, vocabulary_cost

__all__ = [
    "Figure",
    "Frame",
    "accuracy",
    "bundle",
    "cap_curve",
    "cells",
    "columns",
    "coordinates",
    "edit_curve",
    "epochs_by_domain",
    "fertility",
    "funnel",
    "generation_diversity",
    "generations",
    "grad_norm",
    "heat",
    "laws",
    "learning_rate",
    "loss",
    "loss_by_domain",
    "memory",
    "memory_parts",
    "metric",
    "mixture_over_training",
    "mixture_read",
    "plan_vs_actual",
    "rate_over_tokens",
    "reward",
    "rules",
    "s_curve",
    "scores",
    "series",
    "shares",
    "smooth",
    "speed",
    "svg",
    "sweep",
    "thin",
    "to_rows",
    "trade_off",
    "vocabulary_cost",
    "written",
]
