"""The house itself: what set-up files promise each other, what imports cost, how long the rooms are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
SOURCES = sorted(file for folder in ("lablib", "cluster", "widgets", "lab") for file in (REPO / folder).rglob("*.py"))


def constraints() -> dict[str, str]:
    lines = (REPO / ".ci" / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pins}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [
        Requirement(text) for text in [*PROJECT["dependencies"], *(row for rows in extras.values() for row in rows)]
    ]


def test_environment_yml_installs_what_pyproject_declares() -> None:
    environment = yaml.safe_load((REPO / "environment.yml").read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    [pip] = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert f"python{PROJECT['requires-python']}" in conda
    [editable] = [item for item in pip if item.startswith("-e ")]
    extras = re.fullmatch(r"-e \.\[(.+)\]", editable)
    assert extras and set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert "--constraint .ci/constraints.txt" in pip


def test_every_declared_package_has_a_tested_version_within_its_range() -> None:
    pins = constraints()
    torch = re.search(r"^TORCH_VERSION=(\S+)", (REPO / ".ci" / "setup").read_text(), re.M)
    pins["torch"] = torch[1] if torch else ""
    for requirement in requirements():
        if requirement.name != "llm-lab":
            pin = pins[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(pin), f"{requirement} does not admit the tested {pin}"


@pytest.mark.parametrize("module", ["lablib", "lablib.specs", "lablib.plan", "lablib.runs"])
def test_planning_never_imports_the_heavy_packages(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'transformers', 'pandas', 'altair') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_of_the_design_are_there() -> None:
    code = """
from lablib import (ModelSpec, Parallelism, Cluster, Mixture, Pretrain, SFT, Preference, GRPO, Evaluate, estimate, Run, catalog)
from cluster import submit, jobs
from widgets import explore, watch
from lablib.report import export, reproduce
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_rooms_are_small() -> None:
    too_long = [str(file.relative_to(REPO)) for file in SOURCES if len(file.read_text().splitlines()) > 400]
    too_long += [
        f"{file.relative_to(REPO)}:{node.lineno} {node.name}"
        for file in SOURCES
        for node in functions(ast.parse(file.read_text()))
        if (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert not too_long


def undocumented(tree: ast.Module) -> Iterator[str]:
    def public(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                if not ast.get_docstring(node) and not any("overload" in ast.unparse(d) for d in node.decorator_list):
                    yield prefix + node.name
                if isinstance(node, ast.ClassDef):
                    yield from public(node.body, f"{node.name}.")

    yield from public(tree.body, "")


def test_everything_public_says_what_it_is() -> None:
    silent = [
        f"{file.relative_to(REPO)} {name}" for file in SOURCES for name in undocumented(ast.parse(file.read_text()))
    ]
    silent += [str(file.relative_to(REPO)) for file in SOURCES if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent


def test_the_coverage_table_names_what_exists() -> None:
    readme = (REPO / "README.md").read_text()
    table = readme[readme.index("## Coverage") :]
    named = re.findall(r"`((?:lablib|widgets|cluster|lab|notebooks|tests)/[\w/.]+)`", table)
    assert len(named) > 10
    assert [name for name in named if not (REPO / name).exists()] == []
