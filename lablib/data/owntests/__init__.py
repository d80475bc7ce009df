"""The tests that a document of code has of its own, run in the sandbox, and the step of the funnel that keeps what passes."""

from lablib.data.owntests.step import OwnTests, Verdict, judge

__all__ = ["OwnTests", "Verdict", "judge"]
