"""Learn a data mixture from small proxy runs, and see whether it holds up.

  lab mixture learn proxy.toml --proxies 24
  lab mixture learn proxy.toml --proxies 64 --profile slurm-cpu --target big.toml --seeds 3
  lab mixture learn proxy.toml --proxies 24 --json > study.json

`proxy.toml` is a small pretrain recipe on the target's data. Its mixture is varied around natural shares (flattened, so
that small domains are tried too); every variant is a run, together an array on Slurm. An exponential law is fitted to each
domain's held-out bits a byte, the best mixture within the recipe's max_epochs is found, and that mixture, the uniform and
the natural one are trained with fresh seeds: the verdict has a 95 % interval, and is often "not shown". Three to five
proxies a domain are usual. After Ctrl-C, call it again: runs that are there and read the same
data are taken up, not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Group, RenderableType

from cluster.mixing import learn_mixture
from lab.show import console, table
from lablib.data.mixing.study import Study
from lablib.specs import LabError, Pretrain, load_recipe
from lablib.specs.units import show_flops


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("what", choices=["learn"])
    command.add_argument("recipe", help="a small pretrain recipe (.toml or .json): the proxy")
    command.add_argument("--proxies", type=int, default=24, metavar="N", help="proxy runs, at least 4 (default 24)")
    command.add_argument("--seeds", type=int, default=2, help="fresh seeds of each mixture in the check (default 2)")
    command.add_argument(
        "--target", metavar="RECIPE", help="the run that the mixture is for: tells the cost as a share of it"
    )
    command.add_argument(
        "--important",
        action="append",
        default=[],
        metavar="DOMAIN=N",
        help="how much a held-out domain counts; may repeat, others then do not count",
    )
    command.add_argument("--profile", default="local", help="where to run (`lab cluster list`)")
    command.add_argument("--at-once", type=int, default=0, metavar="N", help="at most N runs at a time (default: all)")
    command.add_argument("--root", type=Path, default=None, help="folder of runs (default: ./runs or $LAB_RUNS)")
    command.add_argument("--json", action="store_true", help="print the study as JSON")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Learn, check and show."""
    recipe, target = _pretrain(args.recipe), _pretrain(args.target) if args.target else None
    importance = dict(map(_importance, args.important)) or None
    with console.status("proxies") as status:
        found = learn_mixture(
            recipe, args.proxies, args.profile, args.root, target=target, seeds=args.seeds, importance=importance,
            at_once=args.at_once, tell=lambda words: status.update(f"{words} (Ctrl-C leaves them running)"),
        )  # fmt: skip
    if args.json:
        print(found.to_json())
        return
    console.print(shown(found))


def _pretrain(path: str) -> Pretrain:
    recipe = load_recipe(path)
    if not isinstance(recipe, Pretrain):
        raise LabError(f"{path} is a {recipe.stage} recipe; a mixture is learned with a small pretrain recipe")
    return recipe


def _importance(text: str) -> tuple[str, float]:
    domain, _, number = text.partition("=")
    try:
        return domain, float(number)
    except ValueError:
        raise LabError(f"--important {text!r}: write DOMAIN=NUMBER, for example code=2") from None


def shown(found: Study) -> RenderableType:
    """Mixtures side by side, every way to fit, the verdicts and what it cost."""
    domains = tuple(found.law.importance)
    arms = [[arm.name, f"{arm.mean:.4f}", *(_cell(arm.by_domain[name], arm.mixture.weights.get(name, 0.0)) for name in domains)] for arm in found.arms]  # fmt: skip
    fits = [[one.fitter, "" if one.spearman is None else f"{one.spearman:.2f}", f"{one.gain:+.4f}"] for one in found.opinions]  # fmt: skip
    few = (
        f" (80 %: {found.predicted_range[0]:+.4f} to {found.predicted_range[1]:+.4f})" if found.predicted_range else ""
    )
    cost = f"{show_flops(found.flops)} for proxies and check" + (
        f", {found.cost:.2%} of the target run" if found.cost else ""
    )
    return Group(
        table(["mixture", "bits a byte", *domains], arms, "Held out, mean over seeds: bits a byte at the domain's share of training"),
        table(["fit", "rank of unseen proxies", "gain that it predicts"], fits, f"What {found.law.runs} proxies say"),
        f"The law predicted a gain of {found.predicted_gain:+.4f} on natural proportions{few}.",
        *(f"Verdict: {verdict}." for verdict in found.verdicts),
        f"Cost: {cost}.",
    )  # fmt: skip


def _cell(bits: float, share: float) -> str:
    return f"{bits:.3f} at {share:.1%}"
