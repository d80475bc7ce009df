"""Run directories become one offline file that can be read, verified and run again."""

from lablib.report.export import export, export_chain
from lablib.report.reproduce import reproduce
from lablib.report.seal import load, verify

__all__ = ["export", "export_chain", "load", "reproduce", "verify"]
