"""The Synthesize stage: a model writes documents part by part, what is not accepted is counted, and the rest is a corpus.

What a model writes is text and nothing else: it is stored, and scored by a verifier in a process of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lablib.data import cache, lineage, synthetic
from lablib.data.corpus import SHORTEST
from lablib.data.documents import Report
from lablib.data.scale import Job, Team
from lablib.data.synthetic import Prompt
from lablib.data.tasks import Verifier
from lablib.data.tokenizer import encode_text
from lablib.data.written import FILE, FOLDER, MANIFEST, PARTS
from lablib.models.chat import encode_prompt, ready_to_answer
from lablib.models.export import DTYPES
from lablib.models.folder import replace_folder
from lablib.models.generate import generate, generation_settings
from lablib.models.load import input_model, load_pair
from lablib.posttrain.rows import read_jsonl, write_jsonl
from lablib.runs import Recorder, Run, Stopped
from lablib.specs import LabError, Ref, Synthesize, Task, digest, write_atomic

VERSION = 1
"""Raised when the same inputs would be written on otherwise, so that tasks do not take what an older version wrote."""
BATCHES = 8
"""Batches of a part: what is lost when a job is killed, and what prompts of like length are sought in."""


def synthesize(recipe: Synthesize, run: Recorder) -> None:
    """Make the artefact ``corpus``: ``documents.jsonl`` and a manifest. The folder ``parts`` keeps every completion, those
    that were not accepted with the reason.

    A resumed run keeps its parts, and the bytes are the same; so they are where the recipe's other tasks wrote some of them,
    and task 0 has the artefact. Where it is asked to stop, it returns after the batch at hand. Raises `LabError` where there are too few prompts, where they do not fit the model, or where nothing is accepted.
    """
    try:
        _synthesize(recipe, run)
    except Stopped:
        run.event("stopping", at="generation")


def _synthesize(recipe: Synthesize, run: Recorder) -> None:
    torch.set_num_threads(recipe.threads)
    folder = input_model(run, recipe.model)
    depth = _depth(recipe, folder, run)
    prompts = _prompts(recipe, run)
    run.event("prompts", count=len(prompts), generation=max(prompt.generation for prompt in prompts))
    jobs = prompts * recipe.attempts  # attempts go last, so that the first of them have every prompt once
    size = recipe.batch_size * BATCHES
    parts = [(run.path / PARTS / f"part-{at // size:05}.jsonl", at) for at in range(0, len(jobs), size)]
    if missing := [part for part in parts if not part[0].is_file()]:
        run.progress(len(jobs) - sum(len(jobs[at : at + size]) for _, at in missing), len(jobs), "documents")
        share = partial(_shared, [prompt.key for prompt in prompts]) if recipe.tasks > 1 else _alone
        with Writer(recipe, run, folder, len(jobs)) as writer:
            share(recipe, run, missing, lambda at: writer.write(jobs[at : at + size], at))
    if recipe.helps:
        return
    said = (row for path, _ in parts for row in read_jsonl(path))
    _gather(recipe, run, depth, prompts, zip(jobs, said, strict=True))


Parts = list[tuple[Path, int]]
"""Files of parts, and the place of each one's first completion in the run."""
Write = Callable[[int], list[dict[str, Any]]]
"""The rows of the part that begins at a place."""


def _alone(recipe: Synthesize, run: Recorder, parts: Parts, write: Write) -> None:
    whole, size = recipe.count * recipe.attempts, recipe.batch_size * BATCHES
    for path, at in parts:
        write_jsonl(path, write(at))
        run.saved(min(at + size, whole), path)


def _shared(keys: list[str], recipe: Synthesize, run: Recorder, parts: Parts, write: Write) -> None:
    """The same with the runs of the recipe's other tasks, which find each part in the lab's cache by what it is written from
    (`keys` are the prompts'); the first one takes them."""

    def make(to: Path, _: Report, at: int) -> None:
        write_jsonl(to / FILE, write(at))

    read = sorted(Run(run.path).manifest.get("inputs", {}).values())
    told = digest([VERSION, recipe.science_hash, read, keys])
    wanted = [Job("written", f"{told}-{at}", make, (at,)) for _, at in parts]
    with cache.using(lambda text: run.event("warning", text=text)), Team(1, recipe.tasks, recipe.task) as team:
        made = team.each(wanted, run.heed)
        for (path, _), folder in zip([] if recipe.helps else parts, made, strict=False):
            write_jsonl(path, read_jsonl(folder / FILE))


def _depth(recipe: Synthesize, folder: Path, run: Recorder) -> int:
    """Generation of what the model learned from: what its runs tell, and at least what the recipe says."""
    depth, all_known = lineage.trained_on(folder)
    if not all_known and recipe.trained_on is None:
        run.event("warning", text=f"Nobody knows all text that model {recipe.model} learned from; the rest is taken as people's (generation 0). Say trained_on where models wrote some of it")  # fmt: skip
    return max(depth, recipe.trained_on or 0)


def _prompts(recipe: Synthesize, run: Recorder) -> list[Prompt]:
    data, count, seed = recipe.data, recipe.count, recipe.seed
    longest = recipe.prompt_tokens + recipe.max_new_tokens
    if isinstance(data, Task):
        return synthetic.of_task(data, count)
    path = run.input(data) if isinstance(data, Ref) else None
    if isinstance(data, Ref) and path is not None and (path / "shards").is_dir():
        words = run.input(data.replace(artefact="tokenizer"))
        return synthetic.of_prepared(path, words, count, seed, longest, run.heed)
    return synthetic.of_corpus(str(path or data), count, seed, synthetic.CHARACTERS * longest, run.heed)


@dataclass
class Writer:
    """A loaded model that writes parts, and the verifier of its answers."""

    recipe: Synthesize
    run: Recorder
    folder: Path
    total: int
    """Completions of the whole run, for the progress."""
    model: Any = field(init=False)
    tokenizer: Any = field(init=False)
    verifier: Verifier | None = field(init=False, default=None)

    def __enter__(self) -> Writer:
        recipe = self.recipe
        self.model, self.tokenizer = load_pair(self.folder, DTYPES[recipe.precision])
        if recipe.instruction or isinstance(recipe.data, Task):
            ready_to_answer(self.tokenizer)
        elif self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if isinstance(recipe.data, Task):
            self.verifier = Verifier(recipe.data)
            self.verifier.check([prompt.item for prompt in synthetic.of_task(recipe.data, 8) if prompt.item])
        return self

    def __exit__(self, *_: object) -> None:
        if self.verifier is not None:
            self.verifier.close()

    def write(self, jobs: list[Prompt], at: int) -> list[dict[str, Any]]:
        """``{"prompt": key, "written": text, "refused": reason or nothing}`` for each prompt. `at` is the first one's place in
        the run, which with the seed decides what is drawn."""
        encoded = [self._encoded(job) for job in jobs]
        able = {place: found for place, found in enumerate(encoded) if not isinstance(found, str)}
        settings = generation_settings(self.tokenizer, self.recipe.max_new_tokens, self.recipe.temperature)
        torch.manual_seed(int(digest([self.recipe.seed, at]), 16) % 2**63)
        said = generate(self.model, self.tokenizer, list(able.values()), settings, self.recipe.batch_size, lambda done: self._report(at + done)) if able else []  # fmt: skip
        rows = [{"prompt": job.key, "written": "", "refused": str(found)} for job, found in zip(jobs, encoded, strict=True)]  # fmt: skip
        for place, text in zip(able, said, strict=True):
            rows[place].update(written=_cut(jobs[place], text), refused="")
        self._judge([jobs[place] for place in able], [rows[place] for place in able])
        return rows

    def _report(self, done: int) -> None:
        self.run.progress(done, self.total, "documents")
        self.run.heed()

    def _encoded(self, prompt: Prompt) -> list[int] | str:
        """Token ids, or why there are none."""
        ids = self._ids(prompt)
        most = getattr(self.model.config, "max_position_embeddings", None)
        if not ids:
            return "prompt spells a special token" if ids is None else "prompt is empty"
        return "prompt is too long" if most and len(ids) + self.recipe.max_new_tokens > most else ids

    def _ids(self, prompt: Prompt) -> list[int] | None:
        recipe, tokenizer = self.recipe, self.tokenizer
        if prompt.item is not None:
            return encode_prompt(tokenizer, prompt.item.prompt, prompt.item.is_chat)
        shown = encode_text(tokenizer, prompt.text[: synthetic.CHARACTERS * recipe.prompt_tokens])[: recipe.prompt_tokens]  # fmt: skip
        if not recipe.instruction:
            return shown
        text = tokenizer.decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        try:
            return encode_prompt(tokenizer, f"{recipe.instruction}\n\n{text}")
        except LabError:  # the document, which nobody has checked, could forge a turn
            return None

    def _judge(self, jobs: list[Prompt], rows: list[dict[str, Any]]) -> None:
        """Say of each row why it is not kept, if it is not: the verifier decides on answers, length on documents."""
        if self.verifier is None:
            for row in rows:
                row["refused"] = "too short" if len(row["written"]) < SHORTEST else ""
            return
        items = [job.item for job in jobs if job.item is not None]
        for row, verdict in zip(rows, self.verifier.score(items, [row["written"] for row in rows]), strict=True):
            row["refused"] = (
                "" if verdict.score == 1 else "wrong answer" if verdict.error is None else "verifier's error"
            )


def _cut(prompt: Prompt, text: str) -> str:
    """What is kept of a completion: after worked examples, which a model goes on with, only the line of its answer."""
    text = text.strip()
    return text.partition("\n")[0].strip() if prompt.item is not None and not prompt.item.is_chat else text


def _gather(
    recipe: Synthesize, run: Recorder, depth: int, prompts: list[Prompt], said: Iterator[tuple[Prompt, dict[str, Any]]]
) -> None:
    """Write the accepted rows, each text once, and the manifest; register both. Raises `LabError` where there are none."""
    aside, refused = run.path / ".corpus.writing", Counter[str]()
    label = recipe.model.run if isinstance(recipe.model, Ref) else Path(recipe.model).name
    seen: set[str] = set()
    sample: list[str] = []
    deepest = size = words = 0
    aside.mkdir(exist_ok=True)
    with (aside / FILE).open("w", encoding="utf-8") as file:
        for prompt, found in said:
            if found["prompt"] != prompt.key:
                raise LabError(f"data={recipe.data} has changed since this run began to write; submit a new run to use the new content")  # fmt: skip
            row = synthetic.row(prompt, found["written"], label, depth, recipe.domain, recipe.licence)
            reason = found["refused"] or ("duplicate" if digest(row["text"]) in seen else "")
            if reason:
                refused[reason] += 1
                continue
            seen.add(digest(row["text"]))
            if words < synthetic.WORDS:
                sample.append(row["text"])
                words += len(row["text"].split())
            deepest, size = max(deepest, row["generation"]), size + len(row["text"].encode())
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    asked = len(prompts) * recipe.attempts
    if not seen:
        why = ", ".join(f"{number:,} {reason}" for reason, number in refused.most_common())
        raise LabError(f"None of the {asked:,} completions of model {recipe.model} is kept ({why}); look at parts/ in {run.path}, and take a better model, an easier task or more max_new_tokens={recipe.max_new_tokens}")  # fmt: skip
    facts = {
        "model": str(recipe.model),
        "trained_on": depth,
        "generation": deepest,
        "asked": asked,
        "documents": len(seen),
        "bytes": size,
        "refused": dict(refused),
        "diversity": synthetic.compared(prompts, sample, recipe.drift),
    }
    write_atomic(aside / MANIFEST, json.dumps(facts, indent=1, ensure_ascii=False))
    replace_folder(aside, run.path / FOLDER)
    _tell(run, facts)
    run.artefact("corpus", run.path / FOLDER, kind="corpus")


def _tell(run: Recorder, facts: dict[str, Any]) -> None:
    told = {name: facts[name] for name in ("asked", "documents", "refused", "generation")}
    run.note(synthetic=told)
    run.event("written", **told)
    run.event("diversity", **facts["diversity"])
    for alarm in facts["diversity"]["alarms"]:
        run.event("warning", text=f"What was written is less diverse than its prompts' text: {alarm['measure']} went from {alarm['before']:.3f} to {alarm['after']:.3f} (a loss of {alarm['change']:.0%}); raise the temperature, vary the prompts, or mix it thinly into people's text")  # fmt: skip
