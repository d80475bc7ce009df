"""The evaluation stage: several models on the same items, one interval a score, one paired verdict a comparison."""

from __future__ import annotations

import json
from typing import Any

import torch

from lablib.data.tasks import Item, Verifier, most_common_answer, split_items
from lablib.evals import heldout, needle
from lablib.evals.scores import Scored, summarise
from lablib.models.chat import encode_prompt, ready_to_answer
from lablib.models.generate import generate, generation_settings
from lablib.models.load import input_model, load_pair
from lablib.runs import Recorder, Stopped
from lablib.specs import Evaluate, Task, write_atomic

ITEMS = "items.jsonl"
_CONTEXT = 48
"""Tokens of held-out text that a shown continuation begins from."""
_SHOWN = 400
"""Characters kept of a long prompt's end."""
_WARMTH = 0.8
"""Temperature of shown continuations; greedy text of a small model repeats itself."""


def evaluate(recipe: Evaluate, run: Recorder) -> None:
    """Write ``evals/items.jsonl`` and the artefact "scores". A resumed run keeps the (model, task) pairs it has.

    Returns early, after the batch at hand and with those pairs saved, where the run is asked to stop. Raises `LabError`.
    """
    try:
        _evaluate(recipe, run)
    except Stopped:
        run.event("stopping", at="evaluation")


def _evaluate(recipe: Evaluate, run: Recorder) -> None:
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    folder = run.folder("evals")
    found = Scored.read(folder / ITEMS)
    pieces = _pieces(recipe, run)
    for label in recipe.models:
        run.heed()
        _one_model(recipe, run, label, found, pieces)
    references = [{"task": task.name, "name": "most common answer", "value": _constant(task)} for task in recipe.tasks]
    write_atomic(folder / "scores.json", json.dumps(summarise(recipe, found, references), indent=1))
    run.artefact("scores", folder / "scores.json", kind="scores")


def _pieces(recipe: Evaluate, run: Recorder) -> list[heldout.Piece]:
    if recipe.data is None:
        return []
    words = run.input(recipe.data.replace(artefact="tokenizer"))
    return heldout.read_pieces(run.input(recipe.data), words, recipe.eval_tokens)


def _one_model(recipe: Evaluate, run: Recorder, label: str, found: Scored, pieces: list[heldout.Piece]) -> None:
    """Score one model on whatever it has no complete scores for yet."""
    path = input_model(run, recipe.models[label])
    tasks = [task for task in recipe.tasks if not found.has(label, task.name, task.test)]
    needs_text = bool(pieces) and not found.has(label, heldout.NAME, len(pieces))
    hidden = recipe.needle.items if recipe.needle else 0
    known = recipe.needle.tasks if recipe.needle else {}
    lengths = {name: length for name, length in known.items() if not found.has(label, name, hidden)}
    if not tasks and not needs_text and not lengths:
        return
    model, tokenizer = load_pair(path)
    ready_to_answer(tokenizer)
    for task in tasks:
        _keep(recipe, run, found, _answer(recipe, run, label, task, model, tokenizer))
    for name, length in lengths.items():
        _keep(recipe, run, found, _search(recipe, run, label, (name, length), model, tokenizer))
    if needs_text:
        _keep(recipe, run, found, _measure(recipe, run, label, pieces, model, tokenizer))


def _keep(recipe: Evaluate, run: Recorder, found: Scored, rows: list[dict[str, Any]]) -> None:
    found.add(run.path / "evals" / ITEMS, rows)
    run.saved(sum(map(len, found.rows.values())), run.path / "evals" / ITEMS)
    parts = len(recipe.tasks) + (recipe.data is not None) + len(recipe.needle.lengths if recipe.needle else ())
    run.progress(len(found.rows), len(recipe.models) * parts, "measurements")


def _answer(recipe: Evaluate, run: Recorder, label: str, task: Task, model: Any, tokenizer: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Greedy completions of a task's test items, scored."""
    items = split_items(task, "test")
    prompts = [encode_prompt(tokenizer, item.prompt, item.is_chat) for item in items]
    settings = generation_settings(tokenizer, recipe.max_new_tokens)
    said = generate(model, tokenizer, prompts, settings, recipe.batch_size, run.heed)
    with Verifier(task) as verifier:
        verifier.check(items[:8])
        verdicts = verifier.score(items, said)
    shown = zip(items, said, verdicts, strict=True)
    return [_row(label, task, item, text, verdict) for item, text, verdict in shown]


def _row(label: str, task: Task, item: Item, text: str, verdict: Any) -> dict[str, Any]:
    return {
        "model": label,
        "task": task.name,
        "index": item.index,
        "key": item.key,
        "prompt": item.prompt,
        "right": item.answer,
        "completion": text,
        "answer": verdict.answer,
        "score": verdict.score,
        "error": verdict.error,
    }


def _search(recipe: Evaluate, run: Recorder, label: str, task: tuple[str, int], model: Any, tokenizer: Any) -> list[dict[str, Any]]:  # fmt: skip
    """What the model finds in texts of one length."""
    name, length = task
    wanted = recipe.needle
    assert wanted is not None
    items = needle.hide(wanted, length, tokenizer, recipe.seed)
    said = needle.find(model, tokenizer, items, wanted, run.heed)
    return [
        {"model": label, "task": name, "index": index, "key": item.key, "prompt": item.prompt[-_SHOWN:], "right": item.number,
         "completion": text, "answer": text.strip(), "score": needle.right(item, text), "error": ""}
        for index, (item, text) in enumerate(zip(items, said, strict=True))
    ]  # fmt: skip


def _measure(recipe: Evaluate, run: Recorder, label: str, pieces: list[heldout.Piece], model: Any, tokenizer: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Bits and bytes of each held-out piece, the first `recipe.samples` of them with a continuation to look at."""
    totals, sizes = heldout.bits(model, tokenizer, pieces, recipe.batch_size, run.heed)
    begun = [tokenizer(piece.text, add_special_tokens=False)["input_ids"][:_CONTEXT] for piece in pieces]
    settings = generation_settings(tokenizer, recipe.max_new_tokens, _WARMTH)
    torch.manual_seed(recipe.seed)
    said = generate(model, tokenizer, begun[: recipe.samples], settings, recipe.batch_size, run.heed)
    said += [""] * (len(pieces) - len(said))
    rows = zip(pieces, begun, said, totals, sizes, strict=True)
    return [
        {
            "model": label,
            "task": heldout.NAME,
            "index": place,
            "key": f"{piece.domain}-{place}",
            "prompt": tokenizer.decode(ids),
            "answer": text,
            "score": None,
            "bits": bits,
            "bytes": size,
        }
        for place, (piece, ids, text, bits, size) in enumerate(rows)
    ]


def _constant(task: Task) -> float:
    """The score of always giving the train split's most common answer: what reading nothing is worth."""
    items = split_items(task, "test")
    return sum(item.answer == most_common_answer(task) for item in items) / len(items)
