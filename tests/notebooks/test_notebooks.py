"""The notebooks: clean, short, in step with their twins, and run from top to bottom in both forms at tiny size."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lablib.runs import Run, RunState

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
NAMES = [source.stem for source in SOURCES]


def marimo(*words: str) -> subprocess.CompletedProcess[str]:
    """A marimo command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "marimo", *words], capture_output=True, text=True, check=False)


def test_there_are_notebooks() -> None:
    """The names of the design's list."""
    assert {"00_start", "01_plan_budget", "06_pretrain"} <= set(NAMES)


def test_marimo_finds_nothing_to_complain_about() -> None:
    """Each name is defined once, nothing is starred in, every cell parses."""
    done = marimo("check", "--strict", *map(str, SOURCES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_is_what_marimo_exports(name: str, tmp_path: Path) -> None:
    """Regenerated and compared byte for byte: nobody edits a twin by hand, and no output is committed."""
    fresh = tmp_path / f"{name}.ipynb"
    done = marimo("export", "ipynb", str(FOLDER / f"{name}.py"), "-o", str(fresh))
    assert done.returncode == 0, done.stderr
    assert fresh.read_text() == (FOLDER / f"{name}.ipynb").read_text(), "run `make notebooks`"


def code_lines(source: Path) -> list[str]:
    """Statements of the cells, without imports, prose and the returns that marimo writes."""
    cells = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)]
    statements = [item for cell in cells for item in cell.body]
    kept = [ast.unparse(item) for item in statements if not isinstance(item, ast.Import | ast.ImportFrom | ast.Return)]
    return [line for text in kept if not text.startswith("mo.md(") for line in text.splitlines()]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_tells_and_calls_and_computes_nothing(source: Path) -> None:
    """At most 25 lines of code; a question, what one should see, and a conclusion."""
    assert len(code_lines(source)) <= 25
    text = source.read_text()
    for words in ("question", "What you should see", "## Conclusion", "submit(", "explore(", "watch("):
        assert words in text, words


@pytest.fixture
def tiny(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny size, and a folder of runs of this test's own."""
    monkeypatch.setenv("LAB_TINY", "1")
    return runs


def check(root: Path) -> None:
    """Every run that the notebook submitted has completed."""
    found = [Run(file.parent) for file in root.glob("*/recipe.json")]
    assert found and {run.state for run in found} == {RunState.COMPLETED}, [run.failure for run in found]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_a_script(name: str, tiny: Path) -> None:
    """`python notebook.py`, with nobody watching."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")], capture_output=True, text=True, check=False, cwd=tiny.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(tiny)


def outputs(notebook: Any) -> str:
    """All that the cells showed, as text."""
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(str(output.get("data", output)) for output in shown)


KERNEL = [pytest.param(name, marks=[] if name == NAMES[0] else pytest.mark.slow) for name in NAMES]
"""The twins' cells are the scripts', byte for byte; `make test-all` runs each in a kernel too."""


@pytest.mark.parametrize("name", KERNEL)
def test_the_twin_runs_in_a_jupyter_kernel(name: str, tiny: Path) -> None:
    """Top to bottom under nbclient: boards are widgets, and the last word is that the run completed."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    resources = {"metadata": {"path": str(tiny.parent)}}
    NotebookClient(
        notebook, timeout=250, store_widget_state=False, resources=resources, kernel_name="python3"
    ).execute()
    shown = outputs(notebook)
    boards = "".join(cell.source for cell in notebook.cells if cell.cell_type == "code").count("show(")
    assert shown.count("application/vnd.jupyter.widget-view+json") == boards >= 2
    assert "completed" in shown and os.environ["LAB_TINY"] == "1"
    check(tiny)
