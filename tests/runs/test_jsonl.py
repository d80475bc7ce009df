"""Append-only files under a live writer, a killed writer and two readers at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lablib.runs import jsonl

WRITER = """
import sys
from pathlib import Path
from lablib.runs import jsonl
for step in range(int(sys.argv[2])):
    jsonl.append(Path(sys.argv[1]), {"step": step, "text": "x" * (step % 500)})
"""


def write_in_another_process(path: Path, rows: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(rows)])


def test_two_readers_see_every_row_once_while_a_writer_writes(tmp_path: Path) -> None:
    path, seen = tmp_path / "m.jsonl", ([], [])
    writer = write_in_another_process(path, 3000)

    def follow(into: list[int]) -> None:
        tail = jsonl.Tail(path)
        while writer.poll() is None:
            into.extend(row["step"] for row in tail.read())
        into.extend(row["step"] for row in tail.read())

    readers = [threading.Thread(target=follow, args=(into,)) for into in seen]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert seen[0] == seen[1] == list(range(3000))


def test_a_killed_writer_leaves_a_readable_file_that_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    writer = write_in_another_process(path, 10**6)
    while not path.exists() or path.stat().st_size < 20_000:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    before = jsonl.read(path)
    jsonl.append(path, {"step": -1})
    after = jsonl.read(path)
    assert [row["step"] for row in before] == list(range(len(before)))
    assert after == [*before, {"step": -1}]


@given(st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_any_torn_tail_costs_at_most_the_torn_row(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.jsonl"
        for step in range(5):
            jsonl.append(path, {"step": step, "name": "läuft"})
        whole = path.read_bytes()
        kept = whole[: max(0, len(whole) - cut)]
        path.write_bytes(kept)
        complete = kept.count(b"\n")
        assert [row["step"] for row in jsonl.read(path)] == list(range(complete))
        jsonl.append(path, {"step": 99})
        assert [row["step"] for row in jsonl.read(path)][:complete] == list(range(complete))
        assert jsonl.read(path)[-1]["step"] == 99


def test_a_row_becomes_visible_only_when_its_line_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    tail = jsonl.Tail(path)
    path.write_bytes(b'{"step": 1}\n{"st')
    assert [row["step"] for row in tail.read()] == [1]
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert [row["step"] for row in tail.read()] == [2]


def test_what_is_not_a_number_is_written_as_null_so_that_any_json_reader_can_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    jsonl.append(path, {"loss": float("nan"), "lr": float("inf")})
    strict = json.loads(path.read_text(), parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert strict == {"loss": None, "lr": None}
