"""Direct preference optimisation (arXiv 2305.18290): what is right against what this model says wrongly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from lablib.data.tasks import Item, Verifier
from lablib.models.chat import END, check_content, encode_prompt
from lablib.models.generate import generate, generation_settings
from lablib.posttrain import rows, settings, trainer
from lablib.runs import Recorder
from lablib.specs import LabError, Preference, Task

TRIES = 4
"""Completions sampled for each prompt in search of a wrong one."""
_ANSWER_TOKENS = 24
"""Room for a sampled answer beyond the right answer's own length."""
_SAMPLING_BATCH = 64


@dataclass(frozen=True)
class Pair:
    """A prompt (a user's turn), the preferred answer and the other."""

    prompt: str
    chosen: str
    rejected: str
    is_sampled: bool = False
    """Whether the model itself gave the rejected answer."""


def preference(recipe: Preference, run: Recorder) -> None:
    """Train on the recipe's pairs and write the artefact "model". Raises `LabError` for unfit data."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = trainer.begin(recipe, run)
    pairs = make_pairs(recipe, run, model, tokenizer)
    own = {"max_length": recipe.seq_len, "beta": recipe.beta, "loss_type": [recipe.loss], "disable_dropout": True}
    made = DPOTrainer(
        model=model,
        args=settings.build(DPOConfig, settings.common(recipe, run, "linear") | own),
        train_dataset=Dataset.from_list(encode(tokenizer, pairs, recipe.seq_len, run)),
        processing_class=tokenizer,
        peft_config=trainer.adapter(recipe.lora),
    )
    trainer.finish(made, tokenizer, run)


def make_pairs(recipe: Preference, run: Recorder, model: Any, tokenizer: Any) -> list[Pair]:
    """Pairs from a task (written to ``pairs.jsonl``, so that a resumed run trains on the same) or from a .jsonl file."""
    if isinstance(recipe.data, str):
        return [_read(row, number) for number, row in enumerate(rows.read_jsonl(run.input(recipe.data)), 1)]
    kept = run.path / "pairs.jsonl"
    if kept.is_file():
        return [Pair(**row) for row in rows.read_jsonl(kept)]
    pairs = sample_pairs(recipe.data, recipe.pairs, model, tokenizer, recipe.seed, run)
    rows.write_jsonl(kept, [vars(pair) for pair in pairs])
    return pairs


def _read(row: dict[str, Any], number: int) -> Pair:
    found = [row.get(name) for name in ("prompt", "chosen", "rejected")]
    if not all(isinstance(text, str) and text for text in found) or row["chosen"] == row["rejected"]:
        raise LabError(f"row {number}: prompt, chosen and rejected must be texts, and the last two must differ (got {row!r:.120})")  # fmt: skip
    return Pair(row["prompt"], row["chosen"], row["rejected"])


def sample_pairs(task: Task, count: int, model: Any, tokenizer: Any, seed: int, run: Recorder) -> list[Pair]:
    """`count` pairs: the right answer against the first wrong one of `TRIES` that the model samples at temperature 1.

    Where it samples none, a near miss stands in (`near_miss`); both are counted in the run's notes. Raises `LabError`
    for a task with too few prompts.
    """
    items = rows.chat_items(task)
    if len(items) < count:
        raise LabError(f"pairs={count} needs as many prompts and task {task.name} has train={len(items)}; raise train or lower pairs")  # fmt: skip
    items = items[:count]
    wrong = wrong_answers(task, items, model, tokenizer, run)
    dice = random.Random(seed)
    answers = sorted({item.answer for item in items})
    pairs = [
        Pair(item.prompt, item.answer, said or near_miss(item.answer, answers, dice), said is not None)
        for item, said in zip(items, wrong, strict=True)
    ]
    sampled = sum(pair.is_sampled for pair in pairs)
    run.note(pairs={"sampled": sampled, "near_miss": len(pairs) - sampled})
    return pairs


def wrong_answers(task: Task, items: list[Item], model: Any, tokenizer: Any, run: Recorder) -> list[str | None]:
    """For each item the first sampled completion that the verifier finds wrong, or None."""
    prompts = [encode_prompt(tokenizer, item.prompt) for item in items for _ in range(TRIES)]
    room = _ANSWER_TOKENS + max(len(tokenizer(item.answer)["input_ids"]) for item in items)
    said = generate(
        model,
        tokenizer,
        prompts,
        generation_settings(tokenizer, room, temperature=1.0),
        _SAMPLING_BATCH,
        lambda done: run.progress(done, len(prompts), "samples"),
    )
    with Verifier(task) as verifier:
        verifier.check(items[:8])
        verdicts = verifier.score([item for item in items for _ in range(TRIES)], said)
    usable = [
        text.strip() if verdict.score == 0 and _is_plain(tokenizer, text) else None
        for text, verdict in zip(said, verdicts, strict=True)
    ]
    groups = [usable[start : start + TRIES] for start in range(0, len(usable), TRIES)]
    return [next((text for text in group if text), None) for group in groups]


def _is_plain(tokenizer: Any, text: str) -> bool:
    """Whether a completion can be a message: it has text, and spells no special token."""
    try:
        check_content(tokenizer, [{"role": "assistant", "content": text}])
    except LabError:
        return False
    return bool(text.strip())


def near_miss(answer: str, answers: list[str], dice: random.Random) -> str:
    """A wrong answer that looks like the right one: a whole number off by one, or another item's answer."""
    try:
        return str(int(answer) + dice.choice((-1, 1)))
    except ValueError:
        others = [other for other in answers if other != answer]
        return dice.choice(others) if others else f"not {answer}"


def encode(tokenizer: Any, pairs: list[Pair], seq_len: int, run: Recorder) -> list[dict[str, str]]:
    """Rows of plain text that tokenise to exactly the prompt and the two answers, each with its end of turn.

    Pairs longer than `seq_len` are counted and left out. Raises `LabError` where none is left or a text spells a
    special token.
    """
    examples = []
    for pair in pairs:
        turns = [{"role": "user", "content": pair.prompt}]
        for text in (pair.chosen, pair.rejected):
            check_content(tokenizer, [*turns, {"role": "assistant", "content": text}])
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        row = {"prompt": prompt, "chosen": pair.chosen + END, "rejected": pair.rejected + END}
        if max(len(tokenizer(prompt + row[side])["input_ids"]) for side in ("chosen", "rejected")) <= seq_len:
            examples.append(row)
    rows.report_rows(run, len(examples), len(pairs) - len(examples), seq_len)
    return examples
