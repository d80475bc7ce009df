"""Run as a program in the sandbox: the tests of the Python module ``document.py``, and one line of JSON about them.

The line begins with the words in the file ``mark``, which is gone before the module begins, so that what a module prints by
accident is not taken for it. A module that looks for them among its callers' variables finds them: this tells honest code that
works from honest code that does not.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import json
import os
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

NAME, COUNTER = "document", "__asserted__"
Test = Callable[[], object]


class Counting(ast.NodeTransformer):
    """Adds a call after each assert outside functions and classes."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        """The same, and the call."""
        call = ast.Expr(ast.Call(ast.Name(COUNTER, ast.Load()), [], []))
        return [node, ast.fix_missing_locations(ast.copy_location(call, node))]

    def _leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _leave


def imported(text: str) -> tuple[types.ModuleType, int]:
    """The module, and how many of its asserts outside functions held. Raises whatever it raises."""
    tree, held = Counting().visit(ast.parse(text)), []
    module = types.ModuleType(NAME)
    module.__file__ = "/tmp/document.py"
    sys.modules[NAME] = module
    setattr(module, COUNTER, lambda: held.append(1))
    exec(compile(tree, module.__file__, "exec", dont_inherit=True), vars(module))
    return module, len(held)


def functions(module: types.ModuleType) -> Iterator[Test]:
    """Its functions ``test…``, and those of its classes ``Test…``, that need no argument."""
    for name, found in list(vars(module).items()):
        if getattr(found, "__module__", "") != NAME:
            continue
        if inspect.isfunction(found) and name.startswith("test") and _free(found):
            yield found
        elif inspect.isclass(found) and name.startswith("Test") and not issubclass(found, unittest.TestCase):
            methods = [one for one in vars(found) if one.startswith("test") and inspect.isfunction(vars(found)[one])]
            yield from (_method(found, one) for one in methods if _free(vars(found)[one], 1))


def _method(owner: type, name: str) -> Test:
    return lambda: getattr(owner(), name)()


def _free(function: Callable[..., object], given: int = 0) -> bool:
    needed = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]  # fmt: skip
    return len(needed) <= given and not inspect.iscoroutinefunction(function)


def cases(module: types.ModuleType) -> tuple[int, str]:
    """(unittest's cases that ran and were not skipped, what failed first)."""
    result = unittest.TestResult()
    result.failfast = True
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    bad = [*result.errors, *result.failures]
    said = bad[0][1] if bad else "unexpected success" if result.unexpectedSuccesses else ""
    return result.testsRun - len(result.skipped), said.strip().split("\n")[-1]


def examples(module: types.ModuleType) -> tuple[int, str]:
    """(doctest's examples that ran, what failed first)."""
    ran = 0
    for test in doctest.DocTestFinder().find(module, NAME):
        told = io.StringIO()
        found = doctest.DocTestRunner(verbose=False).run(test, out=told.write)
        ran += found.attempted
        if found.failed:
            return ran, f"doctest of {test.name}: {told.getvalue()[-200:].strip()}"
    return ran, ""


def judged(text: str) -> dict[str, Any]:
    """``tests`` that ran, what ``failed`` first, and the package that the module ``needs`` where it is not there."""
    try:
        module, ran = imported(text)
    except ModuleNotFoundError as error:
        return {"tests": 0, "failed": str(error), "needs": error.name or "?"}
    except BaseException as error:
        return {"tests": 0, "failed": _said(error)}
    for test in functions(module):
        ran += 1
        try:
            test()
        except unittest.SkipTest:
            ran -= 1
        except BaseException as error:
            return {"tests": ran, "failed": f"{getattr(test, '__name__', 'test')}: {_said(error)}"}
    for more in (cases, examples):
        count, failed = more(module)
        ran += count
        if failed:
            return {"tests": ran, "failed": failed}
    return {"tests": ran, "failed": ""}


def _said(error: BaseException) -> str:
    with contextlib.suppress(BaseException):
        return f"{type(error).__name__}: {error}"[:200].rstrip(": ")
    return type(error).__name__


def main() -> NoReturn:
    """Say what came of the tests, and end, whatever threads the module has left."""
    out, mark, own = os.dup(1), Path("mark").read_text(), os.getpid()
    os.unlink("mark")
    found = judged(Path("document.py").read_text(encoding="utf-8"))
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    if os.getpid() == own:  # and no fork that a test has left
        os.write(out, f"\n{mark}{json.dumps(found)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main()
