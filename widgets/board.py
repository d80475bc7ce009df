"""`Board`: the one widget. It shows views (text, charts, tables) and, for an explorer, the knobs that move them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from lablib.charts.bundle import asset, bundle, figures_js
from lablib.explorers import Explorer, View


def _script() -> str:
    """The widget's module with Vega inside; the style goes along as a string, because it belongs in the shadow root."""
    style = asset("lablib.charts", "assets/base.css") + asset("widgets", "board.css")
    return bundle(f"{figures_js()}\nconst STYLE = {json.dumps(style)};\n{asset('widgets', 'board.js')}")


class Board(anywidget.AnyWidget):
    """Shows one or more screens. The traits are snapshots: a view that attaches late misses nothing."""

    screens = traitlets.List(help="What each screen says: the JSON of its View").tag(sync=True)
    specs = traitlets.Dict(help="Vega-Lite by figure name; sent when it changes, frames go with the screens").tag(
        sync=True
    )
    knobs = traitlets.List(help="Inputs of an explorer, in order").tag(sync=True)
    value = traitlets.Dict(help="The knobs' values").tag(sync=True)
    error = traitlets.Unicode(help="Why the values have no view, in words for the user").tag(sync=True)

    def __init__(self, views: Sequence[View], **traits: Any) -> None:
        """Show `views`, the first unfinished or only one in front."""
        super().__init__(_esm=_script(), **traits)
        self.show_views(views)

    def show_views(self, views: Sequence[View]) -> None:
        """Replace what is shown; only traits that changed are sent."""
        specs = {name: spec for view in views for name, spec in view.specs().items()}
        with self.hold_sync():
            self.specs, self.screens = {**self.specs, **specs}, [view.words() for view in views]


class Exploration(Board):
    """A `Board` bound to an explorer: a knob moves, the view is computed again."""

    def __init__(self, explorer: Explorer) -> None:
        """Start from the explorer's own values."""
        self._kind = type(explorer)
        super().__init__([explorer.view()], knobs=self._kind.knobs(), value=explorer.model_dump(mode="json"))

    @property
    def explorer(self) -> Explorer:
        """The explorer with the values that the screen shows. Raises `LabError` where they do not go together."""
        return self._kind(**self.value)

    @property
    def recipe(self) -> Any:
        """The recipe of what the screen shows: what is priced is what runs."""
        return self.explorer.recipe

    @traitlets.observe("value")
    def _recompute(self, _change: Any) -> None:
        from lablib.specs import LabError

        if not hasattr(self, "_kind") or not self.screens:
            return
        try:
            view = self.explorer.view()
        except LabError as error:
            self.error = str(error)
            return
        with self.hold_sync():
            self.error = ""
            self.show_views([view])


def explore(explorer: Explorer) -> Exploration:
    """An explorer as a live screen; ``.recipe`` is what it shows at the moment."""
    return Exploration(explorer)
