"""Removal from the data cache: only what nobody uses, whole, nothing outside, and what it says it freed is what `find` misses."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lablib.data import cache, presence, upkeep
from lablib.data.prepare import prepare
from lablib.runs import Recorder, heartbeat
from lablib.specs import LabError, Prepare

REPO = Path(__file__).resolve().parents[2]
DAY = 86400.0
SIZE = 3000 + len('{"0.bin": 1000, "1.bin": 1000, "2.bin": 1000}')


def product(kind: str, key: str, files: int = 3, age: float = DAY) -> Path:
    """A product of `files` files of 1,000 bytes that was last used `age` seconds ago."""

    def fill(to: Path) -> None:
        for number in range(files):
            (to / f"{number}.bin").write_bytes(bytes([number]) * 1000)

    made = cache.made(kind, key, fill)
    aged(made, age)
    return made


def aged(made: Path, age: float) -> None:
    then = time.time() - age
    os.utime(made / cache.RECORD, (then, then))


def disk(folder: Path) -> int:
    """Bytes of files below as `find` counts them, each inode once."""
    found = subprocess.run(
        ["find", folder, "-type", "f", "-printf", "%i %s\n"], capture_output=True, text=True, check=True
    )
    return sum(int(line.split()[1]) for line in set(found.stdout.splitlines()))


def test_every_kind_that_is_made_is_explained() -> None:
    """The names that the source gives to products are those of the table."""
    named = set()
    for file in (REPO / "lablib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = ast.unparse(node.func)
                if called in ("Job", "cache.made", "cache.folder", "cache.has") and isinstance(node.args[0].value, str):
                    named.add(node.args[0].value)
    assert named | {"scratch"} == set(upkeep.KINDS)


def test_freed_bytes_are_those_that_the_disk_lost_and_the_rest_makes_them_again(tmp_path: Path, home: Path) -> None:
    """Parts share their files with corpora by hard links: removing them frees their lists alone."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"{n} " + f"w{n % 7} v{n % 5} " * 30}) + "\n" for n in range(30)))  # fmt: skip
    recipe = Prepare(corpus=str(tmp_path / "rows.jsonl"), vocab=300, heldout=0.2, part_bytes="2 kB")
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    for made in (home / "data").glob("*/[!.]*"):
        if (made / cache.RECORD).is_file():
            aged(made, DAY)
    held = {one.kind: one for one in upkeep.held()}
    assert held["parts"].own_bytes < held["parts"].bytes / 2 and held["parts"].products > 3 and not held["parts"].in_use
    before, planned = disk(home / "data"), upkeep.remove(dry=True)
    assert disk(home / "data") == before
    told = upkeep.remove()
    assert told == planned and told.bytes == before - disk(home / "data") > 0
    assert set(told.products) == {"parts", "sums", "samples", "encoders"} and not told.in_use + told.younger
    assert held["parts"].own_bytes + held["sums"].own_bytes <= told.bytes
    (home / "data" / "shards").rename(home / "data" / "old")  # which no version of the lab knows
    again = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, again)
    one, other = (sorted((path.name, path.read_bytes()) for path in (run.path / "data" / "shards").iterdir()) for run in (run, again))  # fmt: skip
    assert one == other
    assert upkeep.remove(["all"]).products.keys() >= {"corpora", "tokenizers", "shards"}
    assert {path.name for path in (home / "data").iterdir() if any(path.iterdir())} == {"old"}


def test_age_decides_by_the_last_use_and_kinds_by_name(home: Path) -> None:
    for kind, key, days in (("corpora", "old", 40), ("corpora", "new", 2), ("looks", "old", 40)):
        product(kind, key, age=days * DAY)
    assert upkeep.remove(["corpora"], 30 * DAY, dry=True) == upkeep.Removed({"corpora": 1}, SIZE, 0, 1)
    assert cache.has("corpora", "old"), "which uses it"
    assert upkeep.remove(["corpora"], 30 * DAY).products == {}
    assert upkeep.remove().products == {"looks": 1} and cache.folder("corpora", "old").is_dir()
    for wrong in ("corpus", "../corpora", "claims", ""):
        with pytest.raises(LabError, match="it has corpora, looks, and 'all'"):
            upkeep.remove([wrong])


def test_links_and_what_lies_beside_stay(tmp_path: Path, home: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "a").mkdir(parents=True)
    (outside / "a" / "mine.txt").write_text("mine")
    made = product("parts", "b")
    (made / "link").symlink_to(outside)
    (home / "data" / "looks").symlink_to(outside)
    (home / "data" / "parts" / "linked").symlink_to(outside / "a")
    (home / "data" / "parts" / "note.txt").write_text("mine")
    (home / "data" / "notes" / "a").mkdir(parents=True)
    assert upkeep.remove(["all"]).products == {"parts": 1} and not made.exists()
    assert (outside / "a" / "mine.txt").read_text() == "mine" and (home / "data" / "looks").is_symlink()
    assert (home / "data" / "parts" / "linked").is_symlink() and (home / "data" / "parts" / "note.txt").exists()
    assert (home / "data" / "notes" / "a").is_dir() and upkeep.remove(["notes"]).products == {"notes": 1}


USER = """
import sys, time
from lablib.data import cache
with cache.using():
    assert cache.has("parts", "used")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_living_process_asked_for_stays_until_it_is_dead(home: Path) -> None:
    made = product("parts", "used")
    product("parts", "idle")
    user = subprocess.Popen([sys.executable, "-c", USER], stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None and user.stdout.readline() == "ready\n"
    assert [(one.products, one.in_use) for one in upkeep.held()] == [(2, 1)]
    assert upkeep.remove() == upkeep.Removed({"parts": 1}, SIZE, 1, 0) and made.is_dir()
    user.send_signal(signal.SIGKILL)
    user.wait()
    aged(made, 60)
    assert upkeep.remove().products == {"parts": 1} and not list(presence.folder().glob("*.json"))


@pytest.mark.parametrize(
    ("silent", "stays"), [(0.0, True), (presence.SILENT - 60, True), (presence.SILENT + 60, False)]
)
def test_a_user_elsewhere_counts_while_it_shows_life(home: Path, silent: float, stays: bool) -> None:
    """By times that one file server gives; its own clock is a year ahead."""
    product("parts", "used", age=900)
    product("parts", "before", age=2000)
    now, pulse = time.time(), heartbeat.Pulse.mine(0, "user")
    pulse = replace(pulse, host="elsewhere", boot="other", machine="other", started=pulse.started + 365 * DAY)
    file = presence.folder() / "elsewhere.7.json"
    file.write_text(json.dumps({"since": now - 1000, "pulse": asdict(pulse)}))
    os.utime(file, (now - silent, now - silent))
    work = home / "data" / "parts" / ".under-way.elsewhere.7"
    work.mkdir()
    (home / "data" / "parts" / ".abandoned.elsewhere.6").mkdir()
    os.utime(home / "data" / "parts" / ".abandoned.elsewhere.6", (now - 2000, now - 2000))
    told = upkeep.remove()
    assert (told.in_use, sum(told.products.values())) == ((1, 1) if stays else (0, 2))
    assert work.is_dir(), "it was begun just now"
    assert not (home / "data" / "parts" / ".abandoned.elsewhere.6").exists() and file.exists() == stays


def test_what_is_asked_for_at_the_last_moment_stays_in_its_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: between the look at the last use and the removal somebody finds it whole."""
    made, taken = product("parts", "a"), cache.take

    def late(product: Path, last: float) -> Path | None:
        assert cache.has("parts", "a")
        return taken(product, last)

    monkeypatch.setattr(cache, "take", late)
    assert upkeep.remove() == upkeep.Removed({}, 0, 1, 0) and cache.has("parts", "a")
    assert not (made / cache.LEAVING).exists()


def test_users_and_removals_at_once(home: Path) -> None:
    """Who has found a product whole reads all of it, however often it is removed and made again meanwhile."""
    ended, failed, removed = threading.Event(), list[BaseException](), 0

    def use(key: str) -> None:
        while not ended.is_set() and not failed:
            try:
                with cache.using():
                    made = product("parts", key, age=0)
                    time.sleep(0.001)
                    assert [file.read_bytes()[:1] for file in sorted(made.glob("*.bin"))] == [
                        bytes([n]) for n in range(3)
                    ]
            except BaseException as error:
                failed.append(error)

    users = [threading.Thread(target=use, args=(key,)) for key in "ab"]
    slack, presence.SLACK = presence.SLACK, 0.0
    try:
        for user in users:
            user.start()
        end = time.monotonic() + 2
        while time.monotonic() < end and not failed:
            removed += sum(upkeep.remove().products.values())
    finally:
        ended.set()
        presence.SLACK = slack
        for user in users:
            user.join()
    assert not failed and removed, failed


KILLED = """
import os, signal, sys
from lablib.data import cache, upkeep
name, last = sys.argv[1], int(sys.argv[2])
real, calls = getattr(os, name), 0
def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(os, name, dying)
upkeep.remove()
"""


@pytest.mark.parametrize(("call", "number"), [("unlink", 4), ("rename", 2), ("rename", 3)])
def test_a_removal_that_is_killed_leaves_products_whole_or_absent(
    home: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    for key in "abc":
        product("parts", key)
    done = subprocess.run([sys.executable, "-c", KILLED, call, str(number)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    monkeypatch.setattr(cache, "LOOKS", 2)
    left = [path.name for path in (home / "data" / "parts").glob("[!.]*")]
    assert call == "unlink" or left
    for key in left:
        whole = not (cache.folder("parts", key) / cache.LEAVING).exists()
        files = list(cache.folder("parts", key).glob("*.bin"))
        assert len(files) == 3, "of what is in its place nothing is lost"
        if not whole:
            with pytest.warns(UserWarning, match="cut short"):
                assert not cache.has("parts", key)
    upkeep.remove()
    assert not list((home / "data" / "parts").glob(".*")), "the next removal ends what that one began"
