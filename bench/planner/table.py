"""Reading CSVs of published measurements: whatever is wrong with a row is said, and the row is left out."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

Row = dict[str, str]
NEEDED = {
    "memory": ("id", "model", "gpu", "peak_gib"),
    "throughput": ("id", "model", "gpu", "tok_s_gpu"),
    "runs": ("id", "name", "gpu", "gpu_hours"),
    "posttrain": ("id", "model", "gpu", "stage"),
    "archs": ("model", "n_layers", "hidden"),
}
"""Columns without which a file says nothing; any other may be missing."""
NUMBERS = (
    "params_total", "params_active", "n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "ffn", "vocab", "n_experts",
    "top_k", "moe_ffn", "n_gpus", "micro_batch", "grad_accum", "tp", "pp", "cp", "ep", "vp", "dp", "trainable_params",
    "oom", "peak_gib", "tok_s_gpu", "step_time_s", "tflops_gpu", "tokens", "batch_tokens", "gpu_hours", "wall_days",
    "wall_hours", "train_tokens", "samples", "epochs", "steps", "prompts_per_step", "group_size", "mean_seq_len",
)  # fmt: skip
"""Columns that hold a number or nothing. `seq_len` and `global_batch` may be prose ("<=768 (mean 210)")."""
WORDS = (
    "id", "group", "model", "name", "family", "arch", "task", "framework", "gpu", "precision", "seq_len", "global_batch",
    "zero_stage", "act_ckpt", "offload", "mem_kind", "flop_convention", "stage", "method", "layout", "gpu_hours_kind", "tier",
    "source", "note", "hfu_tflops_gpu", "hfu", "mfu", "mem_gib", "alloc_gib", "max_seq", "mfu_reported", "params_opt_gib",
    "activations_gib", "flops_reported",
)  # fmt: skip
"""Other columns of the truth format. A file may lack any that `NEEDED` does not name: its rows hold "" there."""
PUBLISHED = ("peak_gib", "tok_s_gpu", "step_time_s", "gpu_hours", "wall_hours")
"""Measurements, which cannot be nought."""
LIMITS = {
    "n_layers": 1e4, "hidden": 1e6, "n_heads": 1e5, "n_kv_heads": 1e5, "head_dim": 1e5, "ffn": 1e7, "moe_ffn": 1e7, "vocab": 1e8,
    "n_experts": 1e5, "top_k": 1e5, "n_gpus": 1e8, "micro_batch": 1e7, "tp": 1e6, "pp": 1e6, "cp": 1e6, "ep": 1e6, "vp": 1e4,
    "dp": 1e8, "params_total": 1e16, "params_active": 1e16, "tokens": 1e18,
}  # fmt: skip
"""Beyond these a cell is a slip of the pen (and a loop over it would not end)."""
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*[A-Za-z])")


class Unplannable(Exception):
    """A row that the planner cannot say; the message is the reason."""


class Problem(NamedTuple):
    """A row, or a whole file (`line` 0), that was left out."""

    file: str
    line: int
    row: str
    """The row's id where it has one."""
    reason: str


class Scored(NamedTuple):
    """One published measurement and what the planner says of it."""

    row: str
    """The row's id."""
    source: str
    """Its group or framework: errors are summed up by it."""
    predicted: float
    published: float
    """In the field's unit: GiB, tokens/s/GPU, GPU-hours or seconds; nan where only a verdict is known."""
    note: str = ""
    """What had to be assumed."""
    low: float | None = None
    high: float | None = None
    """The plan's 80 % band."""
    kind: str = ""
    """"" is a measurement; "oom": the row is known to run out of memory; "memory" or "time" in post-training; a further
    word says which kind of it ("time:hours")."""
    fits: bool | None = None
    """The plan's verdict, where memory is asked."""


def read(path: Path) -> tuple[list[Row], list[Problem]]:
    """The sound rows of a CSV, and what was wrong with the others. A missing file is one problem, never an exception."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        return [], [Problem(path.name, 0, "", f"cannot be read: {error.strerror or error}")]
    text = data.decode("utf-8-sig", errors="replace")
    problems = [Problem(path.name, 0, "", "is not UTF-8; unreadable letters were replaced")] if "\ufffd" in text else []
    lines = csv.reader(io.StringIO(text, newline=""))
    cells = _cells(lines, path.name, problems)
    _, header = next(cells, (0, []))
    if not any(header):
        return [], [*problems, Problem(path.name, 0, "", "is empty")]
    header = [name.strip() for name in header]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        return [], [*problems, Problem(path.name, 1, "", f"names columns twice: {', '.join(twice)}")]
    missing = [name for name in NEEDED.get(path.stem, ()) if name not in header]
    if missing:
        problems.append(Problem(path.name, 1, "", f"lacks columns: {', '.join(missing)}"))
    return _rows(cells, header, path.name, problems), problems


def _cells(lines: Iterator[list[str]], file: str, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold anything, with their numbers; what `csv` refuses is a problem."""
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(Problem(file, getattr(lines, "line_num", 0), "", f"is not CSV: {error}"))
            continue
        if any(cell.strip() for cell in cells):
            yield getattr(lines, "line_num", 0), cells


def _rows(cells: Iterator[tuple[int, list[str]]], header: list[str], file: str, problems: list[Problem]) -> list[Row]:
    rows: list[Row] = []
    seen: set[str] = set()
    for line, values in cells:
        row = dict(zip(header, (value.strip() for value in values), strict=False))
        name = row.get("id", "")
        reason = _fault(row, len(values), len(header)) or ("has the id of an earlier row" if name in seen else "")
        if reason:
            problems.append(Problem(file, line, name, reason))
            continue
        seen.update({name} - {""})
        rows.append({**dict.fromkeys((*NUMBERS, *WORDS), ""), **row, "_line": str(line)})
    return rows


def _fault(row: Row, cells: int, columns: int) -> str:
    """Why a row cannot be used; "" where it can."""
    if cells != columns:
        return f"has {cells} cells under {columns} columns"
    for name in NUMBERS:
        text = row.get(name, "")
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            return f"{name}={text!r} is not a number"
        if not math.isfinite(value) or value < 0:
            return f"{name}={text!r} is not a finite, positive number"
        if value > LIMITS.get(name, value):
            return f"{name}={text!r} is larger than anything built"
        if not value and name in PUBLISHED:
            return f"{name} is 0, which cannot have been measured"
    return ""


def real(row: Row, name: str, default: float | None = None) -> float | None:
    """A column as a number, `default` where it is empty; of prose, its largest plain number ("<=768 (mean 210)": 768)."""
    text = (row.get(name) or "").strip()
    try:
        value = float(text)
    except ValueError:
        found = [float(number) for number in _NUMBER.findall(text)]
        return max(found, default=default)
    return value if math.isfinite(value) else default


def whole(row: Row, name: str, default: int = 1) -> int:
    """A column as a whole number, `default` where it is empty."""
    value = real(row, name)
    return default if value is None else int(value)


def with_archs(rows: list[Row], archs: list[Row]) -> list[Row]:
    """The rows with the columns of their model's architecture under ``arch.<column>``, where `archs` lists the model."""
    known = {row["model"].lower(): row for row in archs if row.get("model")}
    return [{**row, **_arch(known.get((row.get("arch") or row.get("model") or "").lower(), {}))} for row in rows]


def _arch(arch: Row) -> Row:
    return {f"arch.{name}": value for name, value in arch.items() if value and not name.startswith("_")}
