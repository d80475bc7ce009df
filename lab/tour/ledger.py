"""Which run each stage of a tour is, kept on disk, so that a second tour reuses what still holds."""

from __future__ import annotations

import json
from pathlib import Path

from cluster import resume, submit
from lablib.runs import Run, RunState, artefacts
from lablib.specs import LabError, Recipe, write_atomic


class Ledger:
    """``tour.json`` beside the runs: label → run id."""

    def __init__(self, root: Path) -> None:
        """`root` is the tour's folder of runs; it is made if need be."""
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def _read(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads((self.root / "tour.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def forget(self) -> None:
        """Reuse nothing from now on; the old runs stay where they are."""
        (self.root / "tour.json").unlink(missing_ok=True)

    def run(self, label: str) -> Run | None:
        """The run that a label had last time, if its folder is still there."""
        folder = self.root / self._read().get(label, "-")
        return Run(folder) if (folder / "recipe.json").is_file() else None

    def obtain(self, label: str, recipe: Recipe, after: Run | None = None) -> tuple[Run, str]:
        """(run, "reused" | "resumed" | "attached" | "submitted") for a stage.

        A completed run of the very same recipe whose artefacts are whole is reused; one that ended early resumes in
        its own folder; one that is still going is attached to; everything else is submitted anew, to begin when `after`
        has completed (stages share the machine one at a time, as their plans assume).
        """
        old = self.run(label)
        if old is not None and _recipe(old) == recipe.content_hash:
            state = old.state
            if not state.finished:
                return old, "attached"
            if state is not RunState.COMPLETED:
                return resume(old), "resumed"
            if _whole(old):
                return old, "reused"
        made = submit(recipe, after=after, root=self.root)
        write_atomic(self.root / "tour.json", json.dumps({**self._read(), label: made.id}, indent=1))
        return made, "submitted"


def _recipe(run: Run) -> str:
    try:
        return run.recipe.content_hash
    except LabError:
        return ""  # written by another version of the lab


def _whole(run: Run) -> bool:
    """Whether everything that a completed run registered is still as it was."""
    try:
        return all(artefacts.fingerprint(run.path / made.path)[0] == made.sha256 for made in run.artefacts.values())
    except LabError:
        return False
