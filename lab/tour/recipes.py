"""The tour's recipes: each is an ordinary recipe, built from the runs before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lablib.plan import estimate, forecast
from lablib.runs import Run
from lablib.specs import (
    GRPO,
    SFT,
    Cluster,
    Evaluate,
    Export,
    LoRA,
    ModelSpec,
    Optimizer,
    Parallelism,
    Preference,
    Prepare,
    Pretrain,
    Recipe,
    Schedule,
    Task,
)
from lablib.specs.units import show_count

CHAT = "smollm2-135m-instruct"
"""The pretrained chat model of `lab tour --full`."""


@dataclass(frozen=True)
class Settings:
    """What a tour may spend; two tours with equal settings make equal recipes."""

    pretrain_seconds: float = 120.0
    """Wall-clock budget of pretraining; the plan turns it into a model and a number of tokens."""
    seed: int = 0
    threads: int = 2
    tiny: bool = False
    """Everything as small as it goes: minutes become seconds, and nothing is learned. For tests."""
    full: bool = False
    """Also align the pretrained chat model."""


Runs = Mapping[str, Run]
Step = tuple[str, Callable[[Runs], Recipe]]


def shape(layers: int, hidden: int) -> ModelSpec:
    """A Qwen3-style model of the tour: grouped-query attention, tied embeddings, 64 features a head."""
    return ModelSpec(
        family="qwen3",
        layers=layers,
        hidden=hidden,
        heads=hidden // 64,
        kv_heads=max(1, hidden // 128),
        head_dim=64,
        ffn=3 * hidden,
        vocab=4096,
        tied_embeddings=True,
        max_seq_len=1024,
    )


CANDIDATES = (shape(4, 128), shape(4, 256), shape(6, 256), shape(8, 384))
"""Shapes the plan chooses from: 1.3M to 16M parameters."""


def pretrain(model: ModelSpec, tokens: int, settings: Settings, data: Run | None = None) -> Pretrain:
    """Pretraining of one candidate; without `data` it is only priced."""
    return Pretrain(
        name="pretrain",
        model=model,
        data="core" if data is None else data.data,
        tokens=tokens,
        seq_len=256,
        batch_tokens=4096,
        optimizer=Optimizer(learning_rate=3e-3),
        schedule=Schedule(kind="wsd", warmup=0.05, decay=0.3),
        parallelism=Parallelism(micro_batch_size=16),
        precision="fp32",
        seed=settings.seed,
        threads=settings.threads,
    )


@dataclass(frozen=True)
class Option:
    """One way to spend the pretraining budget, with what it is predicted to give."""

    recipe: Pretrain
    seconds: float
    loss: float | None

    def row(self) -> list[str]:
        """Parameters, tokens, seconds and loss, as text."""
        from lablib.plan import count_params

        size = show_count(count_params(self.recipe.model).total)
        loss = "" if self.loss is None else f"{self.loss:.2f}"
        return [size, show_count(self.recipe.tokens), f"{self.seconds:.0f} s", loss]


def options(settings: Settings, cluster: Cluster) -> list[Option]:
    """Each candidate with as many tokens as the budget allows, best predicted loss first."""
    found = []
    for model in CANDIDATES[:1] if settings.tiny else CANDIDATES:
        probe = pretrain(model, 4096 * 1000, settings)
        rate = estimate(probe, cluster).tokens_per_second_per_gpu or 1.0
        steps = 12 if settings.tiny else max(50, int(settings.pretrain_seconds * rate / probe.step_tokens))
        recipe = probe.replace(tokens=steps * probe.step_tokens)
        curve = forecast(recipe)
        found.append(Option(recipe, recipe.tokens / rate, curve.final.mid if curve else None))
    return sorted(found, key=lambda option: option.loss if option.loss is not None else float("inf"))


TASK = Task(
    name="siblings",
    generator="aiw",
    params={"task_type_weights": [1.0, 0.0, 0.0], "max_entities": 6},
    train=2000,
    test=300,
)
"""What the tour aligns its model on: how many sisters has Alice's brother (arXiv 2406.02061)? A small model can learn
part of it in a minute and reinforcement has room left; arithmetic needs longer (docs/log.md)."""

CHAT_TASK = Task(
    name="few-shot-sums",
    generator="chain_sum",
    params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    fewshot=6,
    train=64,
    test=24,
)
"""What SmolLM2-135M solves about half the time in few-shot form."""


@dataclass(frozen=True)
class Chain:
    """The tour's stages; each method makes one recipe from the runs before it."""

    settings: Settings
    chosen: Pretrain

    def steps(self) -> list[Step]:
        """Label and recipe of each stage, in order."""
        makers = [self.data, self.pretrain, self.sft, self.preference, self.grpo, self.export, self.evaluate]
        if self.settings.full:
            makers += [self.chat_grpo, self.chat_evaluate]
        return [(make.__name__.replace("_", "-"), make) for make in makers]

    @property
    def _common(self) -> dict[str, Any]:
        return {"seed": self.settings.seed, "threads": self.settings.threads, "precision": "fp32"}

    @property
    def _task(self) -> Task:
        return TASK.replace(train=64, test=16) if self.settings.tiny else TASK

    def _few(self, count: int) -> int:
        return 2 if self.settings.tiny else count

    def data(self, runs: Runs) -> Prepare:
        """The corpus every machine has, a tokenizer trained on it, and token shards."""
        return Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if self.settings.tiny else "24 MB")

    def pretrain(self, runs: Runs) -> Pretrain:
        """What the plan chose, on the prepared data."""
        return self.chosen.replace(data=runs["data"].data)

    def sft(self, runs: Runs) -> SFT:
        """Show the task's form and answers."""
        return SFT(
            model=runs["pretrain"].model,
            data=self._task,
            steps=self._few(90),
            batch_size=16,
            seq_len=128,
            learning_rate=1e-3,
            parallelism=Parallelism(micro_batch_size=16),
            **self._common,
        )

    def preference(self, runs: Runs) -> Preference:
        """Prefer right answers to the model's own wrong ones."""
        return Preference(
            model=runs["sft"].model,
            data=self._task,
            pairs=self._few(1024),
            steps=self._few(64),
            batch_size=16,
            beta=1.0,
            seq_len=128,
            learning_rate=2e-4,
            parallelism=Parallelism(micro_batch_size=16),
            **self._common,
        )

    def grpo(self, runs: Runs) -> GRPO:
        """Reinforce what the verifier accepts."""
        prompts, group = (4, 4) if self.settings.tiny else (8, 8)
        return GRPO(
            model=runs["preference"].model,
            task=self._task,
            prompts_per_step=prompts,
            group_size=group,
            batch_size=prompts * group,
            max_new_tokens=4,
            steps=self._few(90),
            seq_len=128,
            learning_rate=5e-4,
            parallelism=Parallelism(micro_batch_size=prompts * group),
            **self._common,
        )

    def export(self, runs: Runs) -> Export:
        """The last model as a plain folder in bf16."""
        return Export(model=runs["grpo"].model, dtype="bf16", threads=self.settings.threads)

    def evaluate(self, runs: Runs) -> Evaluate:
        """Every stage on the same unseen prompts and the same held-out text."""
        stages = {"base": "pretrain", "sft": "sft", "preference": "preference", "grpo": "grpo"}
        return Evaluate(
            models={label: runs[stage].model for label, stage in stages.items()},
            tasks=(self._task.replace(seed=1),),  # other test items than those the settings were chosen on
            data=runs["data"].data,
            max_new_tokens=4,
            batch_size=100,
            samples=3,
            seed=self.settings.seed,
            threads=self.settings.threads,
        )

    def chat_grpo(self, runs: Runs) -> GRPO:
        """Three steps of a real chat model with adapters (minutes more)."""
        return GRPO(
            name="chat-grpo",
            model=CHAT,
            task=CHAT_TASK,
            prompts_per_step=2,
            group_size=4,
            batch_size=8,
            max_new_tokens=8,
            steps=self._few(3),
            learning_rate=1e-4,
            lora=LoRA(rank=16),
            **self._common,
        )

    def chat_evaluate(self, runs: Runs) -> Evaluate:
        """The chat model before and after."""
        return Evaluate(
            name="chat-evaluate",
            models={"chat": CHAT, "chat-grpo": runs["chat-grpo"].model},
            tasks=(CHAT_TASK,),
            max_new_tokens=8,
            batch_size=8,
            threads=self.settings.threads,
        )
