"""What a login node does for a laptop: ``python -m cluster.remote submit`` reads JSON and prints the runs' folders.

`cluster.far` is the other end; ``look RUN`` has the scheduler's view of a run written into its folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import control
from cluster.submission import submit_all
from lablib.runs import Run
from lablib.specs import Component, LabError, Profile, parse_recipe

ACTS: dict[str, Callable[..., Any]] = {
    "stop": control.stop,
    "resume": control.resume,
    "requeue": control.requeue,
    "extend": control.extend,
    "trace": control.trace,
}


def serve(what: str, order: dict[str, Any]) -> dict[str, Any]:
    """What the login node does with an order. Raises `LabError`."""
    if what == "submit":
        profile = Profile(**order["profile"])
        after = [Run.open((profile.root or Path()) / name) for name in order["after"]]
        recipes, options = [parse_recipe(one) for one in order["recipes"]], order["options"]
        components = [Component(**one) for one in options.pop("components", [])]
        runs = submit_all(recipes, profile, after, components=components, **options)
        return {"runs": [str(run.path) for run in runs]}
    run = Run.open(order["run"])
    if what == "look":
        return {"state": str(run.state)}
    if what not in ACTS:
        raise LabError(f"cluster.remote {what!r}: one of submit, look, {', '.join(ACTS)}")
    done = ACTS[what](run, **order["options"])
    return {"run": str(run.path), "state": str(run.state), **({"asked": done} if isinstance(done, int) else {})}


def main(what: str, *given: str) -> None:
    """Read an order, or with ``look`` a folder, and print the answer as JSON; an error is an answer too."""
    try:
        told = serve(what, {"run": str(Path(given[0]).absolute())} if given else json.load(sys.stdin))
    except LabError as error:
        told = {"error": str(error)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
