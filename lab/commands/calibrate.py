"""Measure this machine, so that plans for it are honest (some seconds).

Measures matmul rates, memory bandwidth, sampling and real training steps at several sizes, fits the planner's few
constants to them, and keeps the result as the cluster called "local". The table shows each probed step, what the
planner with these constants says of it, and what it would say had that step been left out of the fit: that last
column is the honest one. Run it again after the machine has changed; `lab history` shows how real runs compared.
"""

from __future__ import annotations

import argparse
import json

from rich.console import Group

from lab.show import console, emit, table
from lablib.plan import calibrate, efficiency
from lablib.plan.efficiency import Calibration, Probe
from lablib.specs import Cluster, LabError
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import home
from lablib.specs.units import show_dollars, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("--price", default=None, help='dollars an hour that this machine costs you, e.g. "$0.10"')
    command.add_argument(
        "--profile", default=LOCAL, help="where to measure; 'local' (this machine) is the only one yet"
    )
    command.add_argument("--json", action="store_true", help="print the measured cluster and the constants as JSON")


def run(args: argparse.Namespace) -> None:
    """Measure, store and show."""
    if args.profile != LOCAL:
        raise LabError(
            f"profile={args.profile!r}: only 'local' can be measured; run `lab calibrate` on the machine itself"
        )
    with console.status("measuring matmuls, memory and a few training steps"):
        cluster = calibrate(price=args.price)
    constants = efficiency.of(cluster)
    if args.json:
        made = {"cluster": cluster, "efficiency": constants}
        print(json.dumps({name: json.loads(one.to_json()) for name, one in made.items()}, indent=2))
        return
    emit(False, "", _facts(cluster))
    if constants.calibration:
        console.print(_probes(constants.calibration))


def _facts(cluster: Cluster) -> dict[str, str]:
    device = cluster.accelerator
    rates = ", ".join(f"{rate:.3g} TFLOP/s {name}" for name, rate in device.measured_tflops.items())
    price = cluster.price_per_gpu_hour
    return {
        "machine": f"{cluster.gpus_per_node} × {device.name}",
        "memory": f"{device.memory_gib:.4g} GiB at {device.bandwidth_gb_s:.3g} GB/s",
        "matmuls": rates,
        "price": "unknown: give --price" if price is None else f"{show_dollars(price)} an hour of one process",
        "kept in": str(home()),
    }


def _probes(done: Calibration) -> Group:
    columns = ["training step", "measured", "predicted", "error", "left out"]
    return Group(table(columns, [_row(one) for one in done.probes]), str(done))


def _row(one: Probe) -> list[str]:
    foretold = "" if one.left_out_error is None else f"{one.left_out_error:+.0%}"
    size = f"{one.layers} layers × {one.hidden}, {one.tokens:,} tokens"
    return [
        size,
        show_seconds(one.measured_seconds),
        show_seconds(one.predicted_seconds),
        f"{one.error:+.0%}",
        foretold,
    ]
