"""Measure a machine, so that plans for it are honest: this one (some seconds), or a node of a cluster by a job there.

  lab calibrate --price "$0.10"
  lab calibrate --profile slurm-h100
  lab calibrate --run RUN          keep what an earlier job measured, after Ctrl-C

Measures matmul rates, memory bandwidth, sampling and real training steps at several sizes, fits the planner's few
constants to them, and keeps the result under the profile's name ("local" for this machine). The table shows each probed step, what the
planner with these constants says of it, and what it would say had that step been left out of the fit: that last
column is the honest one. Run it again after the machine has changed; `lab history` shows how real runs compared.
"""

from __future__ import annotations

import argparse
import json
import time

from rich.console import Group

from cluster.calibration import kept
from cluster.submission import submit
from lab.show import console, emit, table
from lablib.plan import calibrate, efficiency
from lablib.plan.efficiency import Calibration, Probe
from lablib.runs import Run
from lablib.specs import Calibrate, Cluster, LabError
from lablib.specs.hardware import LOCAL
from lablib.specs.paths import home
from lablib.specs.units import show_dollars, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("--price", default=None, help='dollars an hour that this machine costs you, e.g. "$0.10"')
    command.add_argument("--profile", default=LOCAL, help="where to measure (`lab cluster list`)")
    command.add_argument("--run", help="keep what this run of an earlier `lab calibrate --profile` measured")
    command.add_argument("--json", action="store_true", help="print the measured cluster and the constants as JSON")


def run(args: argparse.Namespace) -> None:
    """Measure, store and show."""
    cluster = _measured(args)
    constants = efficiency.of(cluster)
    if args.json:
        made = {"cluster": cluster, "efficiency": constants}
        print(json.dumps({name: json.loads(one.to_json()) for name, one in made.items()}, indent=2))
        return
    emit(False, "", _facts(cluster))
    if constants.calibration:
        console.print(_probes(constants.calibration))


def _measured(args: argparse.Namespace) -> Cluster:
    if args.run:
        return kept(Run.open(args.run))
    if args.profile == LOCAL:
        with console.status("measuring matmuls, memory and a few training steps"):
            return calibrate(price=args.price)
    if args.price is not None:
        raise LabError(f"price={args.price!r}: a cluster's price stands in its profile; set price_per_gpu_hour there")
    made = submit(Calibrate(), args.profile)
    said = f"run {made.id} measures a node of {args.profile}; Ctrl-C leaves it there, `lab calibrate --run {made.id}` keeps it"
    with console.status(said) as status:
        while not (state := made.state).finished:
            status.update(f"{state} · {said}")
            time.sleep(1)
    return kept(made)


def _facts(cluster: Cluster) -> dict[str, str]:
    device = cluster.accelerator
    rates = ", ".join(f"{rate:.3g} TFLOP/s {name}" for name, rate in device.measured_tflops.items())
    price = cluster.price_per_gpu_hour
    return {
        "machine": f"{cluster.gpus_per_node} × {device.name}",
        "memory": f"{device.memory_gib:.4g} GiB at {device.bandwidth_gb_s:.3g} GB/s",
        "matmuls": rates,
        "price": "unknown: give --price, or the profile a price"
        if price is None
        else f"{show_dollars(price)} an hour of one process",
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
