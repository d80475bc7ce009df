"""A real browser and the two real notebook hosts, started once for all tests that need them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def chromium() -> str:
    """Path of the browser. Without one, CI fails and a developer's test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI"):
        pytest.fail("there is no Chromium, and CI must look at the pages it makes; install the package chromium")
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


class Tab:
    """A page that remembers what it asked the network for and what went wrong."""

    def __init__(self, page: Any) -> None:
        self.page, self.foreign, self.errors = page, [], []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:", "about:")):
            self.foreign.append(request.url)

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text[:400])


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium that reaches loopback only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield made
        made.close()


@contextmanager
def tab(made: Any, **options: Any) -> Iterator[Tab]:
    """A fresh page of its own context."""
    context = made.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
    context.set_default_timeout(180_000)
    yield Tab(context.new_page())
    context.close()


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(command: list[str], url: str, folder: Path, **environment: str) -> Iterator[str]:
    """A server as a child process, ended afterwards; gives `url` once it answers."""
    log = folder / "server.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        _await(url, child, log)
        yield url
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()


def _await(url: str, child: Any, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"{url} does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def jupyter(folder: Path, dark: bool = False) -> Iterator[str]:
    """A JupyterLab on `folder` with settings of its own; gives the address."""
    settings = folder / ".settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    (settings / "themes.jupyterlab-settings").write_text(
        json.dumps({"theme": "JupyterLab Dark" if dark else "JupyterLab Light"})
    )
    port = free_port()
    options = {"ip": "127.0.0.1", "port": port, "root_dir": str(folder), "open_browser": False, "allow_root": True}
    command = [sys.executable, "-m", "jupyterlab", "--IdentityProvider.token=", "--ServerApp.password="]
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    places = {
        f"JUPYTER{name}_DIR": str(folder / ".jupyter" / name.lower())
        for name in ("_CONFIG", "_RUNTIME", "LAB_WORKSPACES")
    }
    with serving(
        command, f"http://127.0.0.1:{port}/api", folder, JUPYTERLAB_SETTINGS_DIR=str(folder / ".settings"), **places
    ):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def marimo(notebook: Path) -> Iterator[str]:
    """A marimo app of one notebook; gives the address."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "marimo",
        "run",
        str(notebook),
        "--headless",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-token",
    ]
    with serving(command, f"http://127.0.0.1:{port}/health", notebook.parent):
        yield f"http://127.0.0.1:{port}"


def write_ipynb(path: Path, cells: list[str]) -> Path:
    """A notebook of code cells."""
    import nbformat

    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        ),
        path,
    )
    return path


def run_all(made: Tab, address: str, notebook: str) -> None:
    """Open a notebook in JupyterLab and run all its cells; returns when they have been sent to the kernel."""
    page = made.page
    page.goto(f"{address}/lab/tree/{notebook}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector(".jp-StatusBar-Widget >> text=/\\| Idle/")
    page.click("#jp-MainMenu >> text=Run")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
