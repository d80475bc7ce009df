"""What a model is shown before it writes, and what its text then is: a document with provenance, held against people's."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from lablib.data import readback
from lablib.data.catalogue import sources_of
from lablib.data.corpus import SHORTEST
from lablib.data.documents import Document
from lablib.data.mixing.collapse import Alarm, diversity, drift, made_from
from lablib.data.tasks import Item, split_items
from lablib.specs import LabError, Task, digest

CHARACTERS = 64
"""Of a document, kept for each token that is shown or written: more than any ordinary token has."""
HUB_BYTES = 100_000
"""Read of a data set of the hub for each prompt that is chosen from it."""
WORDS, FEWEST = 50_000, 200
"""Most words of a sample that diversity is measured on, and how few are too few to tell."""
Heed = Callable[[], None]
"""Called between documents; may raise to stop."""
T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """What a model writes from: the beginning of a document, or a task's question."""

    key: str
    """Of its text."""
    text: str
    source: str
    licence: str
    url: str = ""
    generation: int = 0
    item: Item | None = None
    """The question; None for a document."""

    @property
    def reference(self) -> str:
        """Text that was not written by the model: what the diversity of its own is held against."""
        return f"{self.item.question}\n{self.item.answer}" if self.item else self.text


def of_task(task: Task, count: int) -> list[Prompt]:
    """The first `count` of a task's train items."""
    origin, licence = f"task:{task.name}", f"not stated (a model's answers to {task.generator})"
    return [Prompt(item.key, item.prompt, origin, licence, item=item) for item in split_items(task, "train")[:count]]


def of_corpus(name: str, count: int, seed: int, longest: int, heed: Heed) -> list[Prompt]:
    """`count` documents of a corpus, chosen by hash, each cut to `longest` characters. Raises `LabError` for fewer."""
    limit = count * HUB_BYTES if name.startswith("hf:") else None

    def found() -> Iterator[tuple[str, Prompt]]:
        for source in sources_of(name, limit):
            source.fetch(lambda *_: heed())
            for one in source.documents():
                heed()
                if isinstance(one, Document) and len(one.text.strip()) >= SHORTEST:
                    key = one.sha256
                    yield key, Prompt(key, one.text[:longest], one.source, one.licence, one.url, one.generation)

    return _chosen(found(), count, seed, f"corpus {Path(name).name}")


def of_prepared(data: Path, words: Path, count: int, seed: int, longest: int, heed: Heed) -> list[Prompt]:
    """`count` training documents of a prepared folder, read back with its tokenizer, cut to `longest` tokens.

    Held-out documents stay out. Raises `LabError` where there are fewer, or where the tokenizer is not the data's.
    """
    readback.require(data, words)

    def found() -> Iterator[tuple[str, readback.Placed]]:
        for place, row in readback.training(data):
            heed()
            yield row["sha256"], (place, row)

    chosen = _chosen(found(), count, seed, f"data {data}")
    return [
        Prompt(row["sha256"], text, row["source"], row["licence"], row.get("url", ""), row.get("generation", 0))
        for (_, row), text in zip(chosen, readback.texts(data, words, chosen, longest), strict=True)
    ]


def _chosen(found: Iterable[tuple[str, T]], count: int, seed: int, where: str) -> list[T]:
    """Those whose key has the least hash with the seed, in that order; equal keys count once, and `count` are held at most."""
    held: dict[str, T] = {}
    ranks: list[tuple[int, str]] = []
    for key, one in found:
        if key in held:
            continue
        held[key] = one
        heapq.heappush(ranks, (-int(digest([seed, key]), 16), key))
        if len(ranks) > count:
            del held[heapq.heappop(ranks)[1]]
    if len(ranks) < count:
        raise LabError(f"count={count}: {where} has only {len(ranks)} different documents of {SHORTEST} characters or more; set count={len(ranks)}, and more attempts")  # fmt: skip
    return [held[key] for _, key in sorted(ranks, reverse=True)]


def row(prompt: Prompt, written: str, model: str, depth: int, domain: str, licence: str = "") -> dict[str, Any]:
    """A line of the corpus. `depth` is the generation of what the model learned from; a document is one deeper than that
    and than its prompt, and wholly synthetic. An answer stands below its question, and is a conversation as well."""
    item = prompt.item
    share, generation = made_from((), (depth, prompt.generation))
    made = {
        "text": f"{item.question}\n{written}" if item else written,
        "source": f"model:{model}/{prompt.source}",
        "licence": licence or prompt.licence,
        "url": prompt.url,
        "synthetic": share,
        "generation": generation,
        "domain": domain,
        "prompt": prompt.key,
    }
    if item is not None and item.is_chat:
        made["messages"] = [{"role": "user", "content": item.question}, {"role": "assistant", "content": written}]
    return made


def compared(prompts: Sequence[Prompt], written: Sequence[str], tolerance: float) -> dict[str, Any]:
    """The diversity of what was written beside that of the prompts' own text, on samples of as many words, and the alarms.

    Each prompt's text is cut to the mean length of a written one. Without `FEWEST` words on both sides nothing is told but
    their number.
    """
    words = sum(len(text.split()) for text in written)
    mean = -(-words // max(1, len(written)))
    theirs = [" ".join(prompt.reference.split()[:mean]) for prompt in prompts]
    size = min(WORDS, words, sum(len(text.split()) for text in theirs))
    if size < FEWEST:
        return {"words": size, "alarms": []}
    before, after = diversity(theirs, size), diversity(written, size)
    alarms: list[Alarm] = drift(before, after, tolerance)
    found = {"words": size, "tolerance": tolerance, "prompts": asdict(before), "written": asdict(after)}
    return {**found, "alarms": [asdict(alarm) for alarm in alarms]}
