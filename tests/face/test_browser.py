"""Both notebook hosts and the report, in a real Chromium without a network."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browsing
import made
import pytest

from lablib.report import export
from lablib.runs import Run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(480)]
POINTS = ".lab-figure[data-points]"


def hacked(page: Any) -> bool:
    """Whether any hostile text got to run."""
    return bool(page.evaluate("window.hacked === 1"))


@contextmanager
def writing(root: Path, pause: float = 0.1) -> Iterator[Run]:
    """A run that a process of its own writes to, step by step, until the block ends."""
    recorder = made.start(root, made.pretrain(4000))
    code = (
        f"import sys; sys.path.insert(0, {str(Path(made.__file__).parent)!r}); import made\n"
        f"from lablib.runs import Recorder; from pathlib import Path\n"
        f"with Recorder(Path({str(recorder.path)!r})).working() as run: made.train(run, 4000, {pause})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield Run(recorder.path)
    finally:
        child.terminate()
        child.wait()


def points(page: Any, least: int = 1, seconds: float = 180) -> int:
    """Points of the loss curve that is on the screen, once there are at least `least`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = page.locator(POINTS).first
        if found.count() and int(found.get_attribute("data-points")) >= least:
            return int(found.get_attribute("data-points"))
        time.sleep(0.2)
    pytest.fail(f"the chart did not reach {least} points")


def drawn(page: Any) -> str:
    """The path of the loss line as drawn, so that not only a counter moves."""
    lines = page.locator(".lab-figure .mark-line path")
    path: str = max((lines.nth(i).get_attribute("d") or "" for i in range(lines.count())), key=len)
    return path


def redrawn(page: Any, line: str, seconds: float = 180) -> bool:
    """Whether the loss line becomes another one: the points are counted a moment before they are drawn."""
    deadline = time.monotonic() + seconds
    while drawn(page) == line and time.monotonic() < deadline:
        time.sleep(0.2)
    return drawn(page) != line


def test_the_report_opens_offline_draws_everything_and_runs_nothing_foreign(
    chromium: Any, chain: list[Run], tmp_path: Path
) -> None:
    """Light and dark, narrow and printed: no request, no error, every figure drawn, hostile text is text."""
    path = export(chain, tmp_path / "report.html", question=made.HOSTILE, title=made.HOSTILE)
    for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(17, 24, 39)")):
        with browsing.tab(chromium, color_scheme=scheme, offline=True) as tab:
            tab.page.goto(path.as_uri())
            tab.page.wait_for_selector("body[data-ready]")
            places = tab.page.locator("[data-figure]").count()
            assert places > 8 and tab.page.locator("[data-figure] svg").count() == places
            assert tab.page.evaluate("getComputedStyle(document.querySelector('.lab')).backgroundColor") == ground
            assert not tab.foreign and not tab.errors and not hacked(tab.page)
            assert (
                tab.page.locator("h1").inner_text() == made.HOSTILE.replace("\u2028", " ")
                or made.HOSTILE[:20] in tab.page.locator("h1").inner_text()
            )
    with browsing.tab(chromium, viewport={"width": 380, "height": 800}) as tab:
        tab.page.goto(path.as_uri())
        tab.page.wait_for_selector("body[data-ready]")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 380
        assert len(tab.page.pdf()) > 20_000
        named = [heading["name"] for heading in _tree(tab.page)]
        assert "The plan" in named and "What was not done" in named


def _tree(page: Any) -> list[dict[str, str]]:
    """Headings as a screen reader lists them."""
    lines = page.locator("main").aria_snapshot().splitlines()
    return [{"name": line.split('"')[1]} for line in lines if "heading" in line and '"' in line]


def test_without_scripts_the_report_shows_pictures(chromium: Any, chain: list[Run], tmp_path: Path) -> None:
    """A mail client or a strict browser: the same figures, still."""
    path = export(chain[:2], tmp_path / "report.html")
    with browsing.tab(chromium, java_script_enabled=False) as tab:
        tab.page.goto(path.as_uri())
        pictures = tab.page.locator("noscript img")
        assert pictures.count() > 5
        assert pictures.first.bounding_box()["width"] > 100


def test_watch_moves_in_jupyterlab_while_a_cell_sleeps(chromium: Any, chain: list[Run], tmp_path: Path) -> None:
    """The kernel is busy, the chart grows; after a kernel restart the folder alone brings it back."""
    with writing(tmp_path / "runs") as run, browsing.jupyter(tmp_path) as address:
        cells = [
            f"from widgets import watch\nwatch([{str(run.path)!r}, {str(chain[4].path)!r}])",
            "import time\ntime.sleep(600)",
        ]
        browsing.write_ipynb(tmp_path / "live.ipynb", cells)
        with browsing.tab(chromium) as tab:
            browsing.run_all(tab, address, "live.ipynb")
            before = points(tab.page)
            line = drawn(tab.page)
            after = points(tab.page, before + 10)
            assert tab.page.locator(".jp-StatusBar-Widget >> text=/Busy/").count() == 1
            assert after > before and redrawn(tab.page, line)
            tab.page.locator("[role=tab]", has_text="broken").click()
            tab.page.locator(".lab-failure", has_text="onerror").wait_for()
            assert not hacked(tab.page) and not tab.foreign
            _arrow_keys_stay_inside(tab.page)
            _restart_and_run_first(tab.page)
            assert points(tab.page, after) >= after


def _arrow_keys_stay_inside(page: Any) -> None:
    """A letter typed on a tab of the board must not reach the notebook: `x` would cut the cell."""
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.locator("[role=tab]").first.focus()
    page.keyboard.press("x")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


def _restart_and_run_first(page: Any) -> None:
    """Restart the kernel through the menu and run the first cell only."""
    page.click("#jp-MainMenu >> text=Kernel")
    page.click(".lm-Menu-itemLabel:text-is('Restart Kernel and Clear Outputs of All Cells…')")
    page.click(".jp-Dialog button.jp-mod-accept")
    page.wait_for_selector(POINTS, state="detached")
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")


MARIMO = """
import marimo

app = marimo.App()


@app.cell
def _():
    from widgets import show, watch

    board = show(watch({path!r}))
    board
    return


@app.cell
def _():
    import time

    time.sleep(600)
    return


if __name__ == "__main__":
    app.run()
"""


def test_watch_moves_in_marimo_while_a_cell_sleeps(chromium: Any, tmp_path: Path) -> None:
    """The same board in the other host, dark."""
    with writing(tmp_path / "runs") as run:
        notebook = tmp_path / "live.py"
        notebook.write_text(MARIMO.format(path=str(run.path)))
        with browsing.marimo(notebook) as address, browsing.tab(chromium) as tab:
            tab.page.goto(address)
            before = points(tab.page)
            line = drawn(tab.page)
            assert points(tab.page, before + 10) > before and redrawn(tab.page, line)
            tab.page.evaluate("document.body.dataset.theme = 'dark'; document.documentElement.classList.add('dark')")
            tab.page.locator(".lab.dark").wait_for()
            assert not tab.foreign


EXPLORE = """
import marimo

app = marimo.App()


@app.cell
def _():
    from lablib.explorers import BudgetPlan
    from widgets import explore, show

    board = show(explore(BudgetPlan()))
    board
    return (board,)


@app.cell
def _(board):
    import marimo as mo

    mo.md(f"gpus={{board.recipe.gpus}} in {{len(board.value)}} traits")
    return


if __name__ == "__main__":
    app.run()
"""


def test_a_slider_moves_headlines_charts_and_the_notebooks_recipe(chromium: Any, tmp_path: Path) -> None:
    """By keyboard, as anybody can: the number of accelerators doubles, the other cell sees the new recipe."""
    notebook = tmp_path / "plan.py"
    notebook.write_text(EXPLORE.replace("{{", "{").replace("}}", "}"))
    with browsing.marimo(notebook) as address, browsing.tab(chromium) as tab:
        page = tab.page
        page.goto(address)
        page.get_by_text("gpus=256").wait_for()
        slider = page.get_by_role("slider", name="Accelerators")
        assert slider.get_attribute("aria-valuetext") == "256"
        time_before = page.locator(".lab-headlines div", has_text="Time").inner_text()
        slider.focus()
        for _ in range(80):
            page.keyboard.press("ArrowRight")
        page.get_by_text("gpus=512").wait_for()
        page.wait_for_function("before => !document.body.innerText.includes(before)", arg=time_before)
        assert page.locator(".lab-headlines div", has_text="Time").inner_text() != time_before
        page.get_by_label("Precision").select_option("fp8")
        page.get_by_text("fits in").wait_for()
        assert not tab.foreign and not tab.errors
        assert json.loads(json.dumps(page.locator("figure svg").count())) == 6
