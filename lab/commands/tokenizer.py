"""How many tokens text takes: bytes a token and tokens a word of a run's tokenizer, by text and vocabulary size.

lab tokenizer RUN                       held-out text of each domain, at the run's vocabulary and at smaller ones
lab tokenizer RUN --languages           also one text in 23 languages (npm, 2 MB, once)
lab tokenizer RUN --published qwen3     beside a published tokenizer (npm, 10 to 41 MB, once); all: every one of them
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lab.show import console, table
from lablib.data.tokenizer import fertility, load, tokenizer_hash
from lablib.data.tokenizer.published import PUBLISHED, declaration, published
from lablib.runs import Run
from lablib.specs import LabError


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("run", help="id or folder of a prepare run")
    command.add_argument("--languages", action="store_true", help="measure on one text in many languages, too")
    command.add_argument(
        "--published", action="append", default=[], choices=["all", *PUBLISHED], help="also measure this one"
    )
    command.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> None:
    """Measure and show."""
    opened = Run.open(args.run)
    if "tokenizer" not in opened.artefacts or "data" not in opened.artefacts:
        raise LabError(f"run {opened.id} has no tokenizer with data; give a prepare run that has finished")
    folder = opened.artefact_path("tokenizer")
    texts = fertility.heldout(opened.artefact_path("data"), folder)
    if args.languages:
        texts |= {language: [text] for language, text in declaration().items()}
    rows = _own(opened.id, folder, texts)
    for name in PUBLISHED if "all" in args.published else dict.fromkeys(args.published):
        rows += fertility.measure(PUBLISHED[name].title, published(name), texts)
    if args.json:
        figures = [
            {**asdict(row), "bytes_per_token": row.bytes_per_token, "tokens_per_word": row.tokens_per_word}
            for row in rows
        ]
        print(json.dumps({"hash": tokenizer_hash(folder), "rows": figures}, indent=1, ensure_ascii=False))
        return
    cells = [
        [row.text, row.tokenizer, f"{row.vocab:,}", f"{row.bytes_per_token:.3f}", _each(row)]
        for row in sorted(rows, key=lambda row: list(texts).index(row.text))
    ]
    columns = ["text", "tokenizer", "vocabulary", "bytes a token", "tokens a word"]
    console.print(table(columns, cells, f"Tokenizer {tokenizer_hash(folder)}", words=("tokenizer",)))


def _own(name: str, folder: object, texts: dict[str, list[str]]) -> list[fertility.Fertility]:
    """At each smaller size too where the algorithm allows it."""
    own = load(str(folder))
    is_bpe = type(own.model).__name__ == "BPE"
    return fertility.by_size(name, own, texts) if is_bpe else fertility.measure(name, own, texts)


def _each(row: fertility.Fertility) -> str:
    return "no spaces" if row.tokens_per_word is None else f"{row.tokens_per_word:.2f}"
