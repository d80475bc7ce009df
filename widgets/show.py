"""`show`: one call that displays a board in whichever notebook it stands."""

from __future__ import annotations

import sys
from typing import Any

from widgets.board import Board


def in_marimo() -> bool:
    """Whether the code runs in a marimo notebook or app (marimo need not be installed)."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and bool(marimo.running_in_notebook())


def show(board: Board) -> Any:
    """The board itself in JupyterLab; in marimo a reactive element, so that cells which read its value run again."""
    if not in_marimo():
        return board
    import marimo

    return marimo.ui.anywidget(board)
