"""A sandbox for programs that nobody trusts: models' code, and code of a corpus whose tests are to be run.

One call, `run`, and `available`, which says why a machine cannot. It lies among the data, not with post-training, because the
funnel runs documents' tests and may not import what stands below it; rewards and evaluations may import this.
"""

from lablib.data.sandbox.outside import Outcome, available, run

__all__ = ["Outcome", "available", "run"]
