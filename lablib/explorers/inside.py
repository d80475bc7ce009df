"""What a run saw inside itself, as screens show it: layers over steps, slow ranks, collapsing routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lablib import charts
from lablib.charts import Figure, Frame

ALARMS = ("straggler", "router_collapse")
"""Events by which a run asks for somebody's attention."""
MEASURES: dict[str, tuple[str, str, str, bool]] = {
    "rms": ("Activations by layer", "Root mean square of what each layer gives to the next.", "RMS", True),
    "max": ("Largest activation by layer", "A few huge ones are usual; a layer that grows without end is not.", "max", True),
    "logit_max": ("Largest attention logit by layer", "Of the queries and keys that attend to each other. Above some tens attention is one-hot and its gradient vanishes.", "logit", False),
    "grad_norm": ("Gradient norm by layer", "L2 norm over each layer's weights, before clipping.", "L2 norm", True),
    "experts": ("Experts in use by layer", "e to the entropy of the tokens' shares, over the number of experts: 1 is an even load.", "share", False),
    "load_max": ("Busiest expert by layer", "Tokens of the busiest expert over the mean. No token is dropped.", "× mean", False),
    "dead": ("Dead experts by layer", "Experts that got no token in the step.", "experts", False),
    "balance": ("Balance of the experts by layer", "Load-balance loss without its weight: 1 is even, the number of experts over those that a token gets is the worst.", "", False),
}  # fmt: skip
"""Measure in the ``layers`` or the ``routers`` stream → title, caption, unit, logarithmic colours."""


def frames(rows: Sequence[dict[str, Any]]) -> dict[str, Frame]:
    """``layers_<measure>`` of the rows of the ``layers`` and the ``routers`` stream."""
    made = {f"layers_{measure}": charts.cells(rows, measure) for measure in MEASURES} if rows else {}
    return {name: frame for name, frame in made.items() if frame}


def figures(found: Mapping[str, Frame]) -> list[Figure]:
    """A heat map of each of `frames` that is there."""
    return [charts.heat(f"layers_{name}", *words) for name, words in MEASURES.items() if f"layers_{name}" in found]


def sentence(event: dict[str, Any]) -> str:
    """One of `ALARMS` in words."""
    if event["kind"] == "straggler":
        doing = "waits for its data" if event["part"] == "data" else "computes"
        return f"Rank {event['rank']} on {event['node']} holds the others up: up to step {event['at_step']:,} it {doing} {event['ratio']:.1f} × as long as they do."
    return f"The router of layer {event['layer']} is collapsing: at step {event['at_step']:,} {event['in_use']:.0%} of its experts are in use, the busiest gets {event['load_max']:.1f} × the mean, and {event.get('dead', 0)} get none. Set or raise balance.loss or balance.bias_rate, or lower the learning rate."
