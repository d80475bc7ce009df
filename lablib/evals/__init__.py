"""Evaluation: the same items for every model, intervals on every number, and verdicts from paired differences."""
