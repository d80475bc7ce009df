"""Python source of well-kept libraries, from their own wheels: mathematics, graphs and machine learning."""

from __future__ import annotations

from collections.abc import Iterator

from lablib.data.documents import decode
from lablib.data.packages import Package, members
from lablib.data.sources.pinned import Pinned

LARGEST = 150_000
"""Bytes; longer files in these packages are generated tables."""
_TESTS = ("/tests/", "/test/", "/testing/", "/test_", "/conftest")

LIBRARIES = (
    Package(
        "sympy",
        "1.14.0",
        "sympy-1.14.0-py3-none-any.whl",
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
        6_299_353,
        "BSD-3-Clause",
    ),
    Package(
        "networkx",
        "3.6.1",
        "networkx-3.6.1-py3-none-any.whl",
        "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
        2_068_504,
        "BSD-3-Clause",
    ),
    Package(
        "peft",
        "0.21.2",
        "peft-0.21.2-py3-none-any.whl",
        "106ab6077ff72c54d21577f9af5970e34bac7582cb14209f7b2b511e322a4eae",
        835_427,
        "Apache-2.0",
    ),
    Package(
        "trl",
        "1.16.0",
        "trl-1.16.0-py3-none-any.whl",
        "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396",
        948_205,
        "Apache-2.0",
    ),
    Package(
        "datasets",
        "5.2.0",
        "datasets-5.2.0-py3-none-any.whl",
        "4be9e2882caaf5db13eadc39e93f3da2a995187b99acebac1595bf6c58dfa927",
        608_276,
        "Apache-2.0",
    ),
    Package(
        "accelerate",
        "1.15.0",
        "accelerate-1.15.0-py3-none-any.whl",
        "97eacca0b73e45cb867dbf8c5d5d4dc32219544300e0c8992c7334dc2ef33cec",
        394_295,
        "Apache-2.0",
    ),
)


def read_modules(package: Package) -> Iterator[tuple[str, str]]:
    """Each Python file that is neither a test nor a generated table."""
    for name, data in members(package.path, r"\.py$"):
        if len(data) <= LARGEST and not any(part in f"/{name}" for part in _TESTS):
            yield name, decode(data)


CODE = Pinned("code", LIBRARIES, read_modules)
