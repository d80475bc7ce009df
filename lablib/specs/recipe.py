"""`Recipe`: what every stage's recipe has in common. It says what to do and how it is laid out, never where."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from lablib.specs.base import Spec, digest
from lablib.specs.data import Ref, Slug
from lablib.specs.parallelism import Parallelism

Precision = Literal["fp32", "bf16", "fp16", "fp8", "mxfp8", "nvfp4"]
"""Of the layers' matmuls. fp8 scales tensors or blocks of 128, mxfp8 blocks of 32, nvfp4 blocks of 16 (OCP Microscaling
Formats 1.0); the head stays in 16 bits."""
INTEGERS = ("int8", "int4")
"""Precisions that only serving and frozen weights have: an update is far smaller than a step of their grid, so that rounding
would undo it (arXiv 1502.02551)."""
Recompute = Literal["none", "selective", "selective-op", "selective-layer", "budget", "attention", "full"]
"""What the backward pass computes again. "selective" keeps every matmul's and attention's result and repeats what is
elementwise; "selective-op" keeps attention and every second matmul (torchtitan's per-operator policy); "selective-layer"
repeats every second layer whole; "budget" keeps half of the bytes, those that cost most to compute again (torch.compile's
activation_memory_budget at torchtitan's default of 0.5); "attention" repeats only softmax(QKᵀ)V (Megatron's selective policy, free with
FlashAttention, arXiv 2205.05198 §5); "full" keeps only each layer's input."""
CrossEntropy = Literal["full", "fused", "chunked"]
"""How the loss is computed: "full" holds fp32 log-probabilities and their gradient; "chunked" never holds the logits of more
than a slice of the tokens, and computes the head again in the backward pass; "fused" takes the gradient with the loss: here for
a slice of the tokens at a time (arXiv 2410.10989 §3.2), in other engines in a kernel that writes it over the logits."""
Attention = Literal["auto", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
"""transformers' implementations of attention, and "auto": ours inside each document (`lablib.models.documents`) where documents are
kept apart and it can be had, else "sdpa", torch's, which has kernels on every device and a mask for documents."""
OptimizerKind = Literal["adamw", "adamw-8bit", "adamw-bf16", "adafactor", "lion", "muon", "soap", "shampoo", "sgd"]
"""The update rule, and the precision of its states: their bytes are in `lablib.plan.engines.OPTIMIZER_BYTES`."""
FLOAT8_MULTIPLE = 16
"""What every size of an 8-bit floating-point product must be a multiple of (cuBLASLt, "Tensor Core usage")."""
EIGHT_BIT_BLOCK = 256
"""Elements of "adamw-8bit" that share a scale (torchao.optim, bitsandbytes; the paper has 2,048, arXiv 2110.02861 §2.1)."""
LATER: dict[str, dict[str, Any]] = {
    "": {"z_loss": 0.0, "mup": None, "synthetic": None, "needle": None, "batch_ramp": None, "balance": None},
    "model": {"rope_scaling": None},
    "model.moe": {"every": 1},
    "model.ssm": {"step_rank": 0},
    "model.rope_scaling": {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "mscale": None, "mscale_all_dim": None},
    "optimizer": {"momentum": 0.95},
    "schedule": {"shape": "linear"},
    "clean": {"max_profanity": None},
    "decontaminate": {"edited": 0.6},
}
"""Fields that came after the first runs, by the settings they stand in, and the value at which an experiment is what it was
without them."""
Offload = Literal["none", "optimizer", "activations", "all"]
"""What lives in host memory between uses: optimiser states, each layer's saved input, or both with the parameters."""


class Recipe(Spec):
    """The base of all recipes: frozen, hashable, round-trippable."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset(
        {"name", "threads", "parallelism", "recompute", "compile", "checkpoint_every", "keep_checkpoints", "log_every"}
    )
    """Fields that change how a run executes but not what experiment it is."""

    stage: str
    name: Slug = ""
    """What the run is called; part of its folder's name. Defaults to the stage."""
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, gt=0)
    """CPU threads of each process."""
    parallelism: Parallelism = Parallelism()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": data.get("stage") or cls.model_fields["stage"].default}
        return data

    @property
    def gpus(self) -> int:
        """Processes, one an accelerator."""
        return self.parallelism.gpus

    @property
    def science_hash(self) -> str:
        """16 hex digits of the experiment: execution fields are left out, and a reference counts as the recipe that
        made it, so two layouts (or two places) of one experiment are the same experiment."""
        return digest(self.science())

    def science(self) -> dict[str, Any]:
        """What `science_hash` is the hash of."""
        data: dict[str, Any] = _science(self.model_dump(mode="json", exclude=set(self.EXECUTION)))
        for place, (field, usual) in ((place, later) for place, fields in LATER.items() for later in fields.items()):
            within = _within(data, place)
            if isinstance(within, dict) and field in within and within[field] == usual:
                within.pop(field, None)
        return data

    def refs(self) -> list[Ref]:
        """Every reference to another run in this recipe."""
        return list(_refs(getattr(self, name) for name in type(self).model_fields))


class Shared(Recipe):
    """A recipe whose work several jobs share through the lab's cache; what comes out does not depend on how many."""

    EXECUTION = Recipe.EXECUTION | {"tasks", "task"}
    tasks: int = Field(default=1, gt=0, le=10_000)
    """Jobs that share the work: on Slurm one array. Each is a run of its own, with `threads` of its own."""
    task: int = Field(default=0, ge=0)
    """Which of them this is: 0 gathers and owns the artefacts, the others only help. `submit` makes them of the first."""

    @model_validator(mode="after")
    def _one_of_the_tasks(self) -> Self:
        if self.task >= self.tasks:
            raise ValueError(f"task={self.task} must be below tasks={self.tasks}")
        return self

    @property
    def helps(self) -> bool:
        """Whether it makes no artefact of its own."""
        return self.task > 0

    def shares(self) -> list[Self]:
        """The recipes of all tasks that share the work, this one first; of one task itself alone."""
        if self.task:
            return [self]
        others = range(1, self.tasks)
        return [self, *(self.replace(task=number, name=f"{self.name}-task-{number}") for number in others)]


def _within(data: Any, place: str) -> Any:
    for name in filter(None, place.split(".")):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _science(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"run", "artefact", "science"}:
        return {"artefact": value["artefact"], "science": value["science"]}
    if isinstance(value, dict):
        return {key: _science(item) for key, item in value.items()}
    return [_science(item) for item in value] if isinstance(value, list) else value


def _refs(values: Any) -> Any:
    for value in values:
        if isinstance(value, Ref):
            yield value
        elif isinstance(value, dict):
            yield from _refs(value.values())
        elif isinstance(value, tuple | list):
            yield from _refs(value)


class Optimizer(Spec):
    """AdamW (arXiv 1711.05101) or another rule; weight decay touches matrices only, never norms, biases or embeddings.

    "muon", "soap" and "shampoo" update the matrices inside the blocks, and AdamW the rest. Muon takes AdamW's rates; Lion's are 3 to 10
    times smaller (arXiv 2302.06675 §5), Adafactor's are shares of each parameter's size, about 1e-2 (arXiv 1804.04235 §9).
    """

    kind: OptimizerKind = "adamw"
    learning_rate: float = Field(default=3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Of "muon" (kellerjordan.github.io/posts/muon) and "sgd"."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Global L2 norm that gradients are scaled down to."""

    @field_validator("kind", mode="before")
    @classmethod
    def _known_cost(cls, kind: Any) -> Any:
        if kind == "sophia":
            raise ValueError(
                "Sophia (arXiv 2305.14342) estimates curvature by another backward pass, on labels drawn from the model or "
                "through the gradient itself, which pipelines, sharded experts and fused losses here do not take; use 'soap', "
                "'shampoo' or 'muon'"
            )
        return kind

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each beta must be at least 0 and less than 1")
        return betas


class MuP(Spec):
    """Maximal-update parametrisation (arXiv 2203.03466): the model that learning rate and init_std were tuned on.

    The recipe's model is that one widened by more heads of the same size and a feed-forward in proportion
    (`ModelSpec.widened`), and made deeper.
    """

    hidden: int = Field(gt=0)
    layers: int | None = Field(default=None, gt=0)
    """None: depth is not scaled. Else residual branches are divided by the depth over this (CompleteP, arXiv 2505.01618)."""


class Schedule(Spec):
    """Learning rate over steps: linear warm-up, then WSD (arXiv 2404.06395: stable, then decay), cosine, linear or constant."""

    kind: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    shape: Literal["linear", "1-sqrt"] = "linear"
    """Of WSD's decay; 1-sqrt falls fastest at its start and was the best of those tried (arXiv 2405.18392 §3.1)."""
    warmup: float = Field(default=0.02, ge=0, le=1)
    """Share of all steps."""
    decay: float = Field(default=0.2, ge=0, le=1)
    """Share of all steps that WSD decays over; cosine and linear decay over all that follow the warm-up."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Final learning rate as a share of the peak."""

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup={self.warmup} and decay={self.decay} are more than the whole run")
        return self


class LoRA(Spec):
    """Low-rank adapters (arXiv 2106.09685): W + (alpha / rank)·B·A on the target modules."""

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"
    base: Literal["fp32", "bf16", "int8", "nf4"] = "fp32"
    """How the frozen linear weights are held: as they are trained, halved, or quantised (nf4 is QLoRA, arXiv 2305.14314)."""
