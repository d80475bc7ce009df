"""``lab``: plan, submit, watch and report from the terminal, as a notebook would."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from importlib import import_module

from lablib.specs import LabError

COMMANDS = ("tour", "calibrate", "estimate", "submit", "jobs", "watch", "stop", "resume", "report", "reproduce")

DESCRIPTION = """\
LLM Lab: the recipe you price is the recipe you run, and the report shows both.

  lab tour                         plan, pretrain, align, evaluate and report a small model on this machine
  lab estimate recipe.toml         memory, time and money of a recipe before anything runs
  lab submit recipe.toml           start it as a process of its own; it outlives this terminal
  lab watch RUN                    follow it: loss, tokens/s, ETA, money against the plan
  lab report RUN [RUN ...]         one offline HTML file with plan and outcome side by side
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line; each command's file adds its own arguments."""
    top = argparse.ArgumentParser("lab", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"lab.commands.{name}")
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command. Gives 0, 1 where the command says so, 2 for a mistake that can be mended, 130 for Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
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
        print(
            f"lab {args.command}: {error.strerror}: {error.filename or ''}; nothing that was saved is lost",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
