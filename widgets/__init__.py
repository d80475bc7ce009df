"""Screens in JupyterLab and marimo: what-ifs with `explore`, runs with `watch`."""

from widgets.board import Board, explore
from widgets.show import show
from widgets.watching import watch

__all__ = ["Board", "explore", "show", "watch"]
