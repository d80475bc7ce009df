"""The tour's recipes: each is an ordinary recipe, built from the runs before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

    pretrain_seconds: float = 150.0
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
"""Shapes the plan chooses from: 1.3M to 11M parameters."""


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
        rate = estimate(probe, cluster).tokens_per_second_per_gpu
        steps = 12 if settings.tiny else max(50, int(settings.pretrain_seconds * rate / probe.step_tokens))
        recipe = probe.replace(tokens=steps * probe.step_tokens)
        curve = forecast(recipe)
        found.append(Option(recipe, recipe.tokens / rate, curve.final.mid if curve else None))
    return sorted(found, key=lambda option: option.loss if option.loss is not None else float("inf"))


def prepare(settings: Settings) -> Prepare:
    """The corpus every machine has, a tokenizer trained on it, and token shards."""
    return Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if settings.tiny else "24 MB")


TASK = Task(
    name="sums",
    generator="chain_sum",
    params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    train=2048,
    test=200,
)
"""What the tour aligns its model on: sums with a verifiable answer, test prompts never trained on."""


def steps(settings: Settings, chosen: Pretrain) -> list[Step]:
    """The chain, in order: label and how to make its recipe from the runs before it."""
    scale = 0.02 if settings.tiny else 1.0

    def few(count: int) -> int:
        return max(2, int(count * scale))

    task = TASK.replace(train=64, test=16) if settings.tiny else TASK
    common = {"seed": settings.seed, "threads": settings.threads, "precision": "fp32"}

    def sft(runs: Runs) -> Recipe:
        return SFT(
            model=runs["pretrain"].model,
            data=task,
            steps=few(250),
            batch_size=64,
            seq_len=128,
            learning_rate=1e-3,
            **common,
        )

    def preference(runs: Runs) -> Recipe:
        return Preference(
            model=runs["sft"].model,
            data=task,
            pairs=8 if settings.tiny else 256,
            steps=few(40),
            batch_size=16,
            seq_len=128,
            learning_rate=2e-5,
            **common,
        )

    def grpo(runs: Runs) -> Recipe:
        return GRPO(
            model=runs["preference"].model,
            task=task,
            prompts_per_step=4 if settings.tiny else 16,
            group_size=4 if settings.tiny else 8,
            max_new_tokens=8,
            steps=few(40),
            seq_len=128,
            learning_rate=1e-4,
            **common,
        )

    def evaluate(runs: Runs) -> Recipe:
        models = {
            "base": runs["pretrain"].model,
            **{label: runs[label].model for label in ("sft", "preference", "grpo")},
        }
        return Evaluate(
            models=models,
            tasks=(task,),
            data=runs["data"].data,
            max_new_tokens=8,
            samples=3,
            threads=settings.threads,
            seed=settings.seed,
        )

    def export(runs: Runs) -> Recipe:
        return Export(model=runs["grpo"].model, dtype="bf16")

    return [
        ("data", lambda runs: prepare(settings)),
        ("pretrain", lambda runs: chosen.replace(data=runs["data"].data)),
        ("sft", sft),
        ("preference", preference),
        ("grpo", grpo),
        ("evaluate", evaluate),
        ("export", export),
        *(chat_steps(settings) if settings.full else []),
    ]


def chat_steps(settings: Settings) -> list[Step]:
    """Three GRPO steps of a real chat model with adapters, and its evaluation (minutes more)."""
    task = Task(
        name="few-shot-sums",
        generator="chain_sum",
        params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        fewshot=6,
        train=64,
        test=24,
    )

    def grpo(runs: Runs) -> Recipe:
        return GRPO(
            name="chat-grpo",
            model=CHAT,
            task=task,
            prompts_per_step=2,
            group_size=4,
            max_new_tokens=8,
            steps=3,
            learning_rate=1e-4,
            lora=LoRA(rank=16),
            precision="fp32",
            seed=settings.seed,
            threads=settings.threads,
        )

    def evaluate(runs: Runs) -> Recipe:
        models = {"chat": CHAT, "chat-grpo": runs["chat-grpo"].model}
        return Evaluate(
            name="chat-evaluate", models=models, tasks=(task,), max_new_tokens=8, batch_size=8, threads=settings.threads
        )

    return [("chat-grpo", grpo), ("chat-evaluate", evaluate)]
