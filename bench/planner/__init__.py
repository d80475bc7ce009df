"""The planner held against published measurements: ``python -m bench.planner --truth DIR [--json]``."""
