"""Data in two domains of different words, a model that knows the old one, and the recipes that train it further."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tiny import BATCH, MODEL, SEQ_LEN, Job, attempt, new_run, recipe

from lablib.data.prepare import prepare
from lablib.runs import Recorder, Run
from lablib.specs import Mixture, Optimizer, Prepare, Pretrain, Ref, Schedule

OLD, NEW = Mixture(weights={"old": 1.0}), Mixture(weights={"new": 1.0})
STEPS = 40


@dataclass(frozen=True)
class Made:
    """Where runs lie, their data, the recipe of the parent and its run."""

    root: Path
    data: Ref
    parent: Pretrain
    run: Run

    def train(self, wanted: Pretrain, **how: Any) -> Run:
        """Carry a recipe out beside the parent."""
        path = new_run(self.root, wanted)
        attempt(Job(path, wanted, **how))
        return Run.open(path)


def make(root: Path) -> Made:
    """Prepare the data and train the parent on the old domain under a constant rate, with every tenth checkpoint kept."""
    draw = random.Random(0)
    letters = {"old": "abcdefgh", "new": "mnopqrst"}
    words = {name: ["".join(draw.choices(some, k=draw.randint(2, 5))) for _ in range(40)] for name, some in letters.items()}  # fmt: skip
    rows = [{"text": " ".join(draw.choices(words[name], k=draw.randint(20, 80))) + f" {number}", "domain": name}
            for number in range(150) for name in words]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    (root / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Recorder.create(root, Prepare(corpus=str(root / "two.jsonl"), vocab=MODEL.vocab, heldout=0.1))
    with patch.dict(os.environ, LAB_HOME=str(root / "home")):
        prepare(run.recipe, run)
    data = Run.open(run.path).data
    parent = recipe(
        data,
        mixture=OLD.replace(max_epochs=50),
        tokens=STEPS * BATCH * SEQ_LEN,
        optimizer=Optimizer(learning_rate=5e-3),
        schedule=Schedule(kind="constant"),
        checkpoint_every=10,
        permanent_every=10,
        eval_every=STEPS,
        eval_tokens=40 * SEQ_LEN,
    )
    path = new_run(root, parent)
    attempt(Job(path, parent))
    return Made(root, data, parent, Run.open(path))
