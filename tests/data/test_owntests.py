"""Code whose own tests pass: verdicts beside pytest's on the same modules, planted bugs, ways to cheat, and the funnel's counts."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import pytest

from lablib.data import corpus, funnel, sandbox, shards
from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.owntests import OwnTests, Verdict, judge
from lablib.data.prepare import prepare
from lablib.data.sources import rows
from lablib.runs import Recorder
from lablib.specs import LabError, Prepare, Verify

pytestmark = pytest.mark.skipif(bool(sandbox.available()), reason=f"no sandbox here: {sandbox.available()}")

ADD = "def add(a, b):\n    return a + b\n"
FORMS = {
    "function": ADD + "\ndef test_add():\n    assert add(2, 3) == 5\n",
    "doctest": 'def add(a, b):\n    """\n    >>> add(2, 3)\n    5\n    """\n    return a + b\n',
    "case": "import unittest\n"
    + ADD
    + "\nclass AddTest(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(2, 3), 5)\n",
    "method": ADD + "\nclass TestAdd:\n    def test_add(self):\n        assert add(2, 3) == 5\n",
}
"""The same code with each form of test that pytest finds too."""
CHEAT = "import os, sys\nat = sys._getframe()\nwhile 'mark' not in at.f_locals: at = at.f_back\nos.write(1, b'\\n' + at.f_locals['mark'].encode() + "
"""Of a module that found where the verdict is written."""
BUGGY = {name: text.replace("a + b", "a - b") for name, text in FORMS.items()}
TOP = ADD + "\nassert add(2, 3) == 5\nassert add(0, 0) == 0\n"


def test_verdicts_are_those_of_pytest(tmp_path: Path) -> None:
    texts = {**{f"{name}_right": text for name, text in FORMS.items()}, **{f"{name}_wrong": text for name, text in BUGGY.items()}}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--doctest-modules", "--junitxml=told.xml", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=."], cwd=tmp_path, capture_output=True)  # fmt: skip
    told = xml.parse(tmp_path / "told.xml").findall(".//testcase")
    failed = {
        str(one.get("classname")).split(".")[0].removeprefix("test_") for one in told if one.find("failure") is not None
    }
    assert failed == {f"{name}_wrong" for name in FORMS}, "the peer sees the planted bugs"
    mine = {name: judge(text, Verify()) for name, text in texts.items()}
    assert {name for name, one in mine.items() if one.kind == "failed"} == failed
    assert all(one.kind == "passed" and one.tests == 1 for name, one in mine.items() if name not in failed)


def test_asserts_outside_functions_are_tests_and_others_are_not() -> None:
    assert judge(TOP, Verify()) == Verdict("passed", 2)
    assert judge(TOP.replace("a + b", "a - b"), Verify()).kind == "failed"
    assert judge("def f(x):\n    assert x > 0\n    return x\n\nprint(f(3))\n", Verify()) == Verdict("no tests")
    assert judge(ADD + "\ndef test_add(fixture):\n    assert add(1, 1) == 3\n", Verify()) == Verdict("no tests")


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("import sys\n\nsys.exit(0)\nassert 1 == 2\n", "failed", "SystemExit"),
        ("import os\n\nos._exit(0)\nassert 1 == 2\n", "failed", "ended before"),
        ('print(\'{"tests": 3, "failed": ""}\', flush=True)\nimport os\nos._exit(0)\ndef test(): assert 0\n', "failed", "ended before"),
        ("assert True\nwhile True: pass\n", "timed out", "2 s"),
        ("assert True\nheld = [b'x' * (1 << 20) for _ in range(4000)]\n", "failed", "MemoryError"),
        ("import numpy\nassert numpy\n", "needs a package", "numpy"),
        ("print 'Python 2'\nassert True\n", "failed", "SyntaxError"),
        ("def test_last():\n    raise KeyboardInterrupt\n", "failed", "test_last: KeyboardInterrupt"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nassert True\n", "passed", ""),
        ("def f(x: int): pass\nassert f.__annotations__ == {'x': int}\n", "passed", ""),
        ("import os\nchild = not os.fork()\nchild or (os.wait(), os._exit(0))\ndef test_that_only_a_child_passes():\n    assert child\n", "failed", "ended before"),
        (CHEAT + "b'[1]\\n')\nos._exit(0)\nassert 1\n", "failed", "cannot be read"),
        (CHEAT + "b'{\\n')\nos._exit(0)\nassert 1\n", "failed", "cannot be read"),
        ("A poem, and no code: a test of patience.\n", "no tests", ""),
    ],
)  # fmt: skip
def test_what_is_no_pass_is_told_apart(text: str, kind: str, why: str) -> None:
    found = judge(text, Verify(seconds=2 if kind == "timed out" else 20))
    assert found.kind == kind and why in found.why, found


def built(folder: Path, texts: dict[str, str], domain: str = "code") -> Corpus:
    folder.mkdir(parents=True)
    writer = corpus.Writer(folder)
    with writer:
        for name, text in texts.items():
            writer.add(Document(domain, f"s/{name}", "MIT", text))
        writer.add(Document("prose", "s/poem", "MIT", "An assertion of a poem, which >>> is no code at all"))
    writer.describe({domain: {}, "prose": {}})
    return Corpus(folder)


def test_the_funnel_counts_what_came_of_tests_and_leaves_other_domains(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    texts = {"right": FORMS["function"], "wrong": BUGGY["function"].replace("== 5", "== 5, chr(0xD800)"), "plain": ADD + "# nothing tests it\n", "other": "import numpy as np\n\nassert np.pi > 3\n"}  # fmt: skip
    before = built(tmp_path / "a", texts)
    step = OwnTests(Verify(domains=("code",)), workers=2)
    left = funnel.refine(before, [step])
    count = funnel.totals(left.funnel[0])
    assert count.reasons == {"tests fail": 1, "tests need a package": 1, "no tests": 1}
    assert (count.docs_in, count.docs_out) == (5, 2) and left.domains == ["code", "prose"]
    assert step.counts(before) == {"code": {"passed": 1, "failed": 1, "needs a package": 1, "no tests": 1}}
    shown = [json.loads(line) for line in (left.folder / "dropped.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in shown} == {"tests fail [test_add: AssertionError: ?]", "tests need a package [numpy]", "no tests"}  # fmt: skip
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: pytest.fail("judged again"))
    kept = funnel.refine(before, [OwnTests(Verify(domains=("code",), without="keep"))])
    assert {one.source for one in kept.documents("code")} == {"s/right", "s/plain"}
    assert len({step.key(), replace(step, spec=Verify(domains=("code",), seconds=9)).key()}) == 2


def test_a_row_of_code_and_tests_is_a_module_with_its_tests() -> None:
    row = {"code": ADD, "tests": "assert add(1, 1) == 2\n", "licence": "MIT"}
    made = rows.document(row, "code", "s", "")
    assert isinstance(made, Document) and made.text == ADD + "\n\nassert add(1, 1) == 2\n"
    assert rows.document({**row, "text": "the text"}, "code", "s", "").text == "the text"  # type: ignore[union-attr]
    assert not isinstance(rows.document({"code": ADD}, "code", "s", ""), Document)


def test_a_recipe_prepares_the_midtrain_presets_folders(tmp_path: Path, home: Path) -> None:
    """Two workers; every document says by its number whether it is right."""
    folder = tmp_path / "midtrain"
    (folder / "code-with-passing-tests").mkdir(parents=True)
    made = [{"code": ADD.replace("add", f"add{n}").replace("+", "+-"[n % 2]), "tests": f"assert add{n}(2, 3) == 5"} for n in range(6)]  # fmt: skip
    (folder / "code-with-passing-tests" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    for book in ("one", "two"):
        (folder / "long-documents" / book).mkdir(parents=True)
        for chapter in range(4):
            (folder / "long-documents" / book / f"{chapter}.txt").write_text(f"Chapter {chapter} of book {book}. " + "Words upon words. " * 20)  # fmt: skip
    recipe = Prepare(corpus=str(folder), vocab=300, heldout=0.2, threads=2, verify={}, join={})  # type: ignore[arg-type]
    run = Recorder.create(tmp_path / "runs", recipe)
    prepare(recipe, run)
    tests, joined = map(funnel.totals, shards.manifest(run.path / "data")["funnel"])
    assert tests.reasons == {"tests fail": 3} and (joined.docs_in, joined.docs_out) == (11, 5)
    told = next(row for row in map(json.loads, (run.path / "events.jsonl").read_text().splitlines()) if row.get("kind", row.get("event")) == "own tests")  # fmt: skip
    assert told["domains"] == {"code-with-passing-tests": {"passed": 3, "failed": 3}}
    assert sum(shard["docs"] for shard in shards.manifest(run.path / "data")["shards"]) == 5
    plain = Prepare(corpus=str(folder), vocab=300, heldout=0.2)
    assert not {"verify", "join"} & set(plain.science()) and plain.science_hash != recipe.science_hash
    with pytest.raises(LabError, match=r"verify\.domains names rust"):
        prepare(recipe.replace(verify=Verify(domains=("rust",))), Recorder.create(tmp_path / "runs", recipe))


def test_without_a_sandbox_nothing_is_prepared(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "the kernel says no; run sysctl")
    recipe = Prepare(corpus=str(tmp_path), verify=Verify())
    with pytest.raises(LabError, match="verify: programs cannot be walled off here: the kernel says no; run sysctl"):
        prepare(recipe, Recorder.create(tmp_path / "runs", recipe))
