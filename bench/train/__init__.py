"""Measurements of `lablib.train` beside other trainers, one module each."""
