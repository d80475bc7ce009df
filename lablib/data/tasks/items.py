"""Items of a task: made from a seed, unique, and split by their own text, so that train and test never share a prompt."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

from lablib.data.tasks.audit import check_generator
from lablib.specs import LabError, Task

Split = Literal["train", "test"]
TEST_SHARE = 5
"""One prompt in five belongs to the test split, whatever the counts asked for."""
_PATIENCE = 4000
"""Repeated prompts in a row after which a generator counts as exhausted."""
_ENDLESS = 2**31
_LAID_OUT = {"acre": 2**11, "gsm_symbolic": 2**16, "list_functions": 2**16, "word_ladder": 20_000}
"""Sizes for the generators of reasoning-gym 0.1.25 that lay every item out when they are made, or refuse to be endless."""


@dataclass(frozen=True)
class Item:
    """One question. `index` is its place in the generator's stream, from which the verifier makes it again."""

    index: int
    question: str
    answer: str
    prompt: str
    """What the model reads: the question itself, or worked examples and the question as plain text."""
    is_chat: bool
    """Whether the prompt is a user's turn in a conversation (no worked examples) or plain text to be continued."""

    @property
    def key(self) -> str:
        """16 hex digits of the normalised question: two items with one key are the same prompt."""
        return prompt_key(self.question)


Items = list[Item]


def normalise(text: str) -> str:
    """A prompt without its accidents: NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_key(text: str) -> str:
    """16 hex digits of the SHA-256 of the normalised text."""
    return hashlib.sha256(normalise(text).encode("utf-8", "replace")).hexdigest()[:16]


def split_of(question: str) -> Split:
    """The split that a prompt belongs to, decided by its hash alone.

    So a prompt stays in its split for every seed, count and stage. A split by seed would not do: reasoning-gym seeds
    item i with seed + i, so the streams of neighbouring seeds are the same stream shifted by one.
    """
    return "test" if int(prompt_key(question), 16) % TEST_SHARE == 0 else "train"


def make_generator(task: Task) -> Any:
    """The reasoning-gym data set of a task. Raises `LabError` for a wrong generator or wrong parameters."""
    import reasoning_gym

    check_generator(task.generator)
    clash = {"seed", "size"} & set(task.params)
    if clash:
        raise LabError(
            f"task {task.name}: params must not set {sorted(clash)}; use the task's own seed, train and test"
        )
    try:
        size = _LAID_OUT.get(task.generator, _ENDLESS)
        return reasoning_gym.create_dataset(task.generator, seed=task.seed, size=size, **task.params)
    except (TypeError, ValueError, AssertionError) as error:
        raise LabError(f"task {task.name}: params={task.params} do not suit {task.generator}: {error}") from None


def _stream(task: Task, split: Split) -> Iterator[tuple[int, str, str]]:
    """(index, question, answer) of each new prompt of a split, in the generator's order."""
    source, seen, repeats = make_generator(task), set[str](), 0
    for index in range(_LAID_OUT.get(task.generator, _ENDLESS)):
        if repeats >= _PATIENCE:
            return
        entry = source[index]
        question = str(entry["question"]).strip()
        key = prompt_key(question)
        repeats = repeats + 1 if key in seen else 0
        if key not in seen and split_of(question) == split and entry["answer"] is not None:
            yield index, question, str(entry["answer"])
        seen.add(key)


def split_items(task: Task, split: Split) -> Items:
    """The task's items of one split: ``task.train`` or ``task.test`` of them, without repeats.

    Worked examples come from the head of the train stream and are never items themselves. Raises `LabError` where the
    generator has fewer different prompts than asked for.
    """
    return list(_split_items(task.to_json(), split))


@lru_cache(maxsize=16)
def _split_items(task_json: str, split: Split) -> tuple[Item, ...]:
    task = Task.from_json(task_json)
    shots = _take(_stream(task, "train"), task.fewshot) if task.fewshot else []
    skipped, count = (len(shots), task.train) if split == "train" else (0, task.test)
    rows = _take(_stream(task, split), skipped + count)[skipped:]
    if len(rows) < count:
        raise LabError(f"task {task.name}: {task.generator} with {task.params} has only {len(rows)} different {split} prompts; set {split}={len(rows)} or widen params")  # fmt: skip
    return tuple(
        Item(index, question, answer, few_shot_prompt(shots, question) if shots else question, not shots)
        for index, question, answer in rows
    )


def _take(stream: Iterator[tuple[int, str, str]], count: int) -> list[tuple[int, str, str]]:
    return list(islice(stream, count))


def few_shot_prompt(shots: list[tuple[int, str, str]], question: str) -> str:
    """Worked examples and the question as plain text that ends in ``Answer:``.

    Plain, because a small chat model follows worked examples in running text and not as earlier turns (SmolLM2-135M,
    four examples: 10 of 16 one-digit sums against 1 of 16). The end has no space: the answer's token brings its own.
    """
    solved = "".join(f"Question: {asked}\nAnswer: {said}\n\n" for _, asked, said in shots)
    return f"{solved}Question: {question}\nAnswer:"


def most_common_answer(task: Task) -> str:
    """The answer that most train items have: what a model that reads nothing could say every time."""
    counts = Counter(item.answer for item in split_items(task, "train"))
    return min(counts, key=lambda answer: (-counts[answer], answer))
