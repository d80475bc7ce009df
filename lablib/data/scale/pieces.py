"""Token shards made in parts: each part of the corpus is tokenised by itself, and the pieces of a domain are joined.

The joined files are those that one pass over the corpus would write, byte for byte.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data import selection, shards, tokenizer
from lablib.data.corpus import Corpus
from lablib.data.documents import Document, Report, file_sha256, held, silent
from lablib.data.scale.corpora import linked
from lablib.data.scale.team import Job, Team
from lablib.specs import digest, write_atomic

COMPARED = 200
"""Documents of the corpus on which a fast encoder must give the reference's ids before it is used."""


def make(built: Corpus, tokens: Path, caps: Mapping[str, float | None], heldout: float, key: str, team: Team,
         report: Report) -> list[Path]:  # fmt: skip
    """Folders of the pieces, in order: each part's shards, and ``pieces.json`` that describes them.

    `caps` are the bytes that each domain may have (`selection.quotas`); `key` is that of the shards.
    """
    bounds = {domain: selection.bound(built, domain, cap) for domain, cap in caps.items()}
    facts = encoder(built, tokens, key, team, held(report))
    threads = team.threads if len(built.parts) == 1 else 1
    jobs = [
        Job("pieces", digest([key, part.identity]), _piece, (part.folder, tokens, bounds, heldout, facts, threads))
        for part in built.parts
    ]
    return team.each(jobs, report)


def _piece(folder: Path, report: Report, part: Path, tokens: Path, bounds: Mapping[str, str | None], heldout: float,
           facts: dict[str, Any], threads: int) -> None:  # fmt: skip
    built, loaded = Corpus(part), tokenizer.load(tokens)
    separator, _ = tokenizer.end_and_pad(loaded, tokens)
    encoder = tokenizer.chosen(loaded, facts, threads)
    kind, done, made = shards.id_type(loaded.get_vocab_size()), 0, list[shards.Shard]()
    total = sum(built.bytes(domain) for domain in built.domains)
    (folder / "shards").mkdir()
    for domain in built.domains:
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(shards.Writer(folder / "shards", domain, split, kind, separator))
                for split in selection.SPLITS
            }
            tick = _after(report, done, total)
            shards.tokenise(_split(built, domain, bounds[domain], heldout), encoder, writers, tick)
        made += [writer.shard() for writer in writers.values()]
        done += built.bytes(domain)
    write_atomic(folder / "pieces.json", json.dumps([asdict(one) for one in made]))


def encoder(built: Corpus, tokens: Path, key: str, team: Team, report: Report = silent) -> dict[str, Any]:
    """Which encoder tokenises: chosen once for all parts (`lablib.data.tokenizer.fastest`)."""
    folder = team.one(Job("encoders", key, _choose, (built, tokens)), report)
    found: dict[str, Any] = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    return found


def _choose(folder: Path, report: Report, built: Corpus, tokens: Path) -> None:
    facts = tokenizer.fastest(tokenizer.load(tokens), _compared(built)).facts()
    write_atomic(folder / "encoder.json", json.dumps(facts))


def _after(report: Report, before: float, total: float) -> Report:
    return lambda done, _: report(before + done, total)


def _compared(built: Corpus) -> list[str]:
    """Documents that encoders are compared on: as many of each domain, spread evenly over it."""
    each, texts = -(-COMPARED // max(1, len(built.domains))), []
    for domain in built.domains:
        every = max(1, built.facts["domains"][domain]["docs"] // each)
        texts += [document.text for document in islice(built.documents(domain), 0, every * each, every)]
    return texts


def _split(built: Corpus, domain: str, last: str | None, heldout: float) -> Iterator[tuple[Document, str]]:
    for document in built.documents(domain):
        sha256 = document.sha256
        if selection.taken(sha256, last):
            yield document, selection.split_of(sha256, heldout)


def join(pieces: Sequence[Path], domains: Sequence[str], folder: Path) -> list[shards.Shard]:
    """Write the shards of all domains into `folder`, and say what they are."""
    folder.mkdir(exist_ok=True)
    if len(pieces) == 1:
        linked(pieces[0] / "shards", folder)
        return [shards.Shard(**row) for row in json.loads((pieces[0] / "pieces.json").read_text())]
    counted = [{(row["domain"], row["split"]): row for row in json.loads((piece / "pieces.json").read_text())} for piece in pieces]  # fmt: skip
    made = []
    for domain in domains:
        for split in selection.SPLITS:
            rows = [found[domain, split] for found in counted if (domain, split) in found]
            stems = [piece / "shards" / f"{domain}.{split}" for piece, found in zip(pieces, counted, strict=True) if (domain, split) in found]  # fmt: skip
            made.append(_shard(domain, split, stems, rows, folder / f"{domain}.{split}"))
    return made


def _shard(domain: str, split: str, stems: Sequence[Path], rows: Sequence[dict[str, Any]], to: Path) -> shards.Shard:
    """One domain's and split's pieces in one file each of ids, ends and sources."""
    ends, last = [np.zeros(0, np.int64)], 0
    zipped = gzip.GzipFile(f"{to}.docs.jsonl.gz", "wb", compresslevel=1, mtime=0)
    with Path(f"{to}.bin").open("wb") as tokens, zipped, io.TextIOWrapper(zipped, encoding="utf-8") as sources:
        for stem in stems:
            ends.append(np.load(f"{stem}.idx.npy") + last)
            last = int(ends[-1][-1]) if len(ends[-1]) else last
            with Path(f"{stem}.bin").open("rb") as file:
                shutil.copyfileobj(file, tokens, 1 << 20)
            with gzip.open(f"{stem}.docs.jsonl.gz", "rt", encoding="utf-8") as lines:
                for line in lines:  # zlib's output depends on how its input is cut: as `shards.Writer` does
                    sources.write(line)
    np.save(f"{to}.idx.npy", np.concatenate(ends).astype("<i8"))
    docs, size, count = (sum(row[name] for row in rows) for name in ("docs", "bytes", "tokens"))
    return shards.Shard(domain, split, docs, size, count, file_sha256(Path(f"{to}.bin")), file_sha256(Path(f"{to}.idx.npy")))  # fmt: skip
