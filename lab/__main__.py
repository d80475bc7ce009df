"""``lab``: plan, submit, watch and report from the terminal, as a notebook would."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from importlib import import_module

from lablib.specs import LabError

COMMANDS = {
    "tour": "plan, pretrain, align, evaluate and report a small model on this machine",
    "calibrate": "measure this machine, so that plans for it are honest",
    "estimate": "what a recipe takes: FLOPs, memory, step time, hours and dollars",
    "layouts": "every layout of a model's training on a cluster, fastest first, and why the others lose",
    "plan": "from a budget in dollars or days to the sizes, tokens and layouts that it buys",
    "thumb": "rules of thumb, typical costs and compute budgets, reckoned today",
    "cluster": "where recipes can run: list and show profiles, draft one from a Slurm login node",
    "submit": "start a recipe here or as a Slurm job, and return at once",
    "jobs": "the runs with state, progress, ETA, loss and money",
    "watch": "follow a run until it ends",
    "trace": "have a working run record what its ranks do in the next steps, and show where the time went",
    "logs": "what a rank of a run printed",
    "data": "what a prepared data set is made of: funnel, rights, what was dropped; and the data cache",
    "mup": "the best learning rate for a large model from narrow ones, and what they cost beside it",
    "mixture": "learn a data mixture from small proxy runs, and see whether it holds up",
    "tokenizer": "how many tokens text takes: by domain, language and vocabulary size, beside published tokenizers",
    "stop": "ask a run to save and end, or end it now",
    "requeue": "have a run save and begin again from its checkpoint",
    "extend": "change what a run may spend, or how long a job of it may take",
    "resume": "continue a stopped, lost or failed run from its last checkpoint",
    "history": "what finished runs were planned to take against what they took, and the error by stage",
    "report": "one self-contained HTML file about a chain of runs",
    "reproduce": "run again what a report says was run, and compare",
}

DESCRIPTION = """\
LLM Lab: the recipe you price is the recipe you run, and the report shows both.

  lab tour                         plan, pretrain, align, evaluate and report a small model on this machine
  lab estimate recipe.toml         memory, time and money of a recipe before anything runs
  lab layouts llama-3-70b          every way to lay its training over a cluster, fastest first
  lab plan --budget '$50k'         which sizes, tokens and layouts that buys
  lab submit recipe.toml           start it as a process of its own; it outlives this terminal
  lab watch RUN                    follow it: loss, tokens/s, ETA, money against the plan
  lab report RUN [RUN ...]         one offline HTML file with plan and outcome side by side

`lab COMMAND --help` explains each; most take --json for scripts.
"""


def parser(chosen: str) -> argparse.ArgumentParser:
    """The command line. Only the `chosen` command's file is imported, so that help answers at once."""
    text = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("lab", description=DESCRIPTION, formatter_class=text)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=line)
            continue
        module = import_module(f"lab.commands.{name}")
        command = commands.add_parser(name, help=line, description=module.__doc__, formatter_class=text)
        module.arguments(command)
        command.set_defaults(execute=module.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command. Gives 0, 1 where the command says so, 2 for a mistake that can be mended, 130 for Ctrl-C."""
    words = sys.argv[1:] if argv is None else argv
    args = parser(next((word for word in words if word in COMMANDS), "")).parse_args(words)
    try:
        return int(args.execute(args) or 0)
    except LabError as error:
        print(f"lab {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Runs go on by themselves; `lab jobs` lists them.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"lab {args.command}: {error.strerror} {error.filename or ''}; what was saved is whole", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
