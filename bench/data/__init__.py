"""Measurements of `lablib.data`, one module each."""
