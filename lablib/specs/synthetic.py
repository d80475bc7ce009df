"""Text that models write: the recipe that has a model write it, and the caps on how much of it a corpus may hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from lablib.specs.base import Spec
from lablib.specs.data import Ref, Slug, Task
from lablib.specs.posttrain import ModelInput
from lablib.specs.recipe import Shared
from lablib.specs.units import Count


class Written(Spec):
    """How much of a domain a model wrote."""

    share: float = Field(ge=0, le=1)
    """Synthetic share of its tokens."""
    generation: int = Field(ge=0)
    """The deepest of its documents."""


class Caps(Spec):
    """How much synthetic text a corpus, or what a mixture reads of one, may hold."""

    depth: int = Field(default=1, ge=0)
    """Deepest generation that stays; 1 allows text made from human text, not text made from that."""
    document: float = Field(default=1.0, ge=0, le=1)
    """Greatest synthetic share of one document."""
    corpus: float = Field(default=0.5, ge=0, le=1)
    """Greatest synthetic share of all tokens. Nemotron-CC, at 1.9T of 6.3T, has .30."""

    def against(self, weights: Mapping[str, float], written: Mapping[str, Written]) -> str:
        """Why a mixture breaks the caps on depth and corpus, with the remedy; empty where it keeps them.

        `weights` are shares of tokens that sum to 1; a domain that `written` does not name is people's.
        """
        models = {name: (weight, written[name]) for name, weight in weights.items() if weight > 0 and name in written}
        if deep := [f"{name} ({one.generation})" for name, (_, one) in models.items() if one.generation > self.depth]:
            return f"mixture.weights takes text of a deeper generation than synthetic.depth={self.depth}: {', '.join(deep)}; give it weight 0, or raise the cap where the data is prepared"
        parts = {name: weight * one.share for name, (weight, one) in models.items()}
        total = sum(parts.values())
        if total <= self.corpus * (1 + 1e-9):
            return ""
        most = max(parts, key=parts.__getitem__)
        weight, one = models[most]
        others = (total - parts[most]) / (1 - weight) if weight < 1 else 0.0
        fits = f"at most {(self.corpus - others) / (one.share - others):.1%}" if others < self.corpus else "less, and others too"  # fmt: skip
        return f"mixture.weights makes {total:.1%} of the tokens synthetic, more than synthetic.corpus={self.corpus:g}: {most} has weight {weight:.1%} and is {one.share:.0%} synthetic; give it {fits}, or raise the cap where the data is prepared"


class Synthetic(Spec):
    """What a prepared folder says of text that models wrote (`FILE` in it), where there is any."""

    FILE: ClassVar[str] = "synthetic.json"
    domains: dict[str, Written]
    caps: Caps | None = None
    """Those that its recipe sets; None: the usual ones, which only warn."""

    @classmethod
    def of(cls, data: Path) -> Self:
        """What the folder says; without its file nothing in it is a model's. Raises `LabError` for a damaged file."""
        return cls.load(data / cls.FILE) if (data / cls.FILE).is_file() else cls(domains={})

    def against(self, weights: Mapping[str, float]) -> str:
        """`Caps.against` under the recipe's caps or the usual ones."""
        return (self.caps or Caps()).against(weights, self.domains)


def _kind(value: Any) -> str:
    """By its keys, so that what is wrong in one kind is not said of the others too."""
    if isinstance(value, str):
        return "corpus"
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    return "ref" if "run" in keys else "task"


WritesFrom = Annotated[
    Annotated[Ref, Tag("ref")] | Annotated[Task, Tag("task")] | Annotated[str, Tag("corpus")], Discriminator(_kind)
]


class Synthesize(Shared):
    """Have a model write documents. Makes the artefact ``corpus``, JSON lines with provenance, which `Prepare.corpus` takes.

    From documents it writes what comes after their beginning, or what `instruction` asks for; of a task's questions it
    answers those of the train split, and only answers that the verifier accepts are kept (rejection sampling). Its `tasks`
    write parts of it, each an accelerator's work.
    """

    stage: Literal["synthesize"] = "synthesize"
    model: ModelInput
    data: WritesFrom
    """What it begins from: a task, a Prepare run's data (its training documents), another Synthesize run's corpus, or a
    corpus as `Prepare` takes it: a name, a folder or a file, or ``hf:<data set>``."""
    instruction: str = ""
    """What a chat model is asked to do with each document, which follows it in the same turn ("Rephrase this as a
    dialogue:"); empty: the document's beginning is continued."""
    count: Count = 512
    """Prompts: documents or questions, chosen by hash with the seed, each once."""
    attempts: int = Field(default=1, gt=0)
    """Completions of each prompt."""
    prompt_tokens: int = Field(default=128, gt=0)
    """Tokens that are shown of a document, from its beginning."""
    max_new_tokens: int = Field(default=256, gt=0)
    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest token each time; else tokens are drawn from the whole softmax."""
    batch_size: int = Field(default=32, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the weights that write."""
    domain: Annotated[Slug, Field(max_length=64)] = "synthetic"
    """The domain of what is written, so that a mixture can weigh it."""
    licence: str = ""
    """Licence of what is written; empty: that of each prompt's document."""
    trained_on: int | None = Field(default=None, ge=0)
    """Greatest generation of the text that the model was trained on, where its runs do not tell: a model from elsewhere
    counts as trained on people's text (0), with a warning. It can only raise what the runs do tell."""
    drift: float = Field(default=0.1, gt=0, lt=1)
    """Relative loss of diversity, against the prompts' own text, above which the run raises an alarm."""

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        if self.gpus > 1:
            raise ValueError(f"parallelism takes {self.gpus} processes; one process writes: leave it out, and set tasks={self.gpus} for as many jobs that share the work")  # fmt: skip
        if self.attempts > 1 and self.temperature == 0:
            raise ValueError(
                f"attempts={self.attempts} at temperature=0 are all the same text; raise temperature, or set attempts=1"
            )
        if not isinstance(self.data, Task):
            return self
        if self.instruction:
            raise ValueError("instruction is for documents, and a task asks its own questions; leave it empty")
        if self.count > self.data.train:
            raise ValueError(
                f"count={self.count} is more than the task's train={self.data.train} questions; raise data.train"
            )
        return self
