"""Supervised fine-tuning: the next token of what the assistant says, and of nothing else."""

from __future__ import annotations

from typing import Any

from lablib.models.chat import Message, encode_chat
from lablib.posttrain import rows, settings, trainer
from lablib.runs import Recorder
from lablib.specs import SFT, Task

IGNORED = -100
"""Label that the loss leaves out."""


def sft(recipe: SFT, run: Recorder) -> None:
    """Train on the recipe's conversations and write the artefact "model". Raises `LabError` for unfit data."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = trainer.begin(recipe, run)
    examples = encode(tokenizer, conversations(recipe.data, run), recipe.seq_len, run)
    own = {"max_length": recipe.seq_len, "packing": False, "shuffle_dataset": True, "loss_type": "nll"}
    made = SFTTrainer(
        model=model,
        args=settings.build(SFTConfig, settings.common(recipe, run, "linear") | own),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        peft_config=trainer.adapter(recipe.lora),
    )
    trainer.finish(made, tokenizer, run)


def conversations(data: Task | str, run: Recorder) -> list[list[Message]]:
    """A task's questions with their answers, or the conversations of a .jsonl file. Raises `LabError`."""
    if isinstance(data, Task):
        return [_solved(item.question, item.answer) for item in rows.chat_items(data)]
    path = run.input(data)
    return [
        rows.check_messages(row.get("messages"), f"{path}, row {number}")
        for number, row in enumerate(rows.read_jsonl(path), 1)
    ]


def _solved(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def encode(tokenizer: Any, chats: list[list[Message]], seq_len: int, run: Recorder) -> list[dict[str, list[int]]]:
    """``input_ids`` and ``labels`` of each conversation of at most `seq_len` tokens; longer ones are counted.

    Labels are set here and not by the trainer, which would drop a row that truncation left without labels and not say
    so. Raises `LabError` where a mask is not exactly the assistant's text, or where no row is left.
    """
    examples = []
    for chat in chats:
        ids, mask = encode_chat(tokenizer, chat)
        if len(ids) <= seq_len:
            labels = [token if keep else IGNORED for token, keep in zip(ids, mask, strict=True)]
            examples.append({"input_ids": ids, "labels": labels})
    rows.report_rows(run, len(examples), len(chats) - len(examples), seq_len)
    return examples
