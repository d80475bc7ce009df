"""Pretraining: one readable loop (`loop.py`) and the small parts that hang on it."""
