"""Recipes of post-training: SFT → preference, reward → GRPO, PPO."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lablib.specs.data import Ref, Task
from lablib.specs.recipe import (
    CrossEntropy,
    LoRA,
    Offload,
    OptimizerKind,
    Precision,
    Recipe,
    Recompute,
)

ModelInput = Ref | str
"""A reference to a run's model, a folder, or the name of a pretrained model that the lab can fetch."""


class PostTrain(Recipe):
    """What SFT, preference and RL recipes share."""

    EXECUTION = Recipe.EXECUTION | {"mean_tokens", "longest_tokens", "cross_entropy", "offload"}
    model: ModelInput
    steps: int = Field(default=100, gt=0)
    batch_size: int = Field(default=16, gt=0)
    """Sequences (pairs for preference, completions for GRPO) of one optimiser step."""
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    seq_len: int = Field(default=1024, gt=1)
    """Longest sequence; a longer row is counted and dropped, never cut in silence."""
    mean_tokens: int | None = Field(default=None, gt=0)
    """Mean tokens of the data's sequences where they are known; the planner assumes them else, and says so."""
    longest_tokens: int | None = Field(default=None, gt=0)
    """Tokens of the longest sequence: what memory must hold, however rare it is."""
    lora: LoRA | None = None
    precision: Precision = "bf16"
    recompute: Recompute = "none"
    compile: bool = False
    cross_entropy: CrossEntropy = "full"
    offload: Offload = "none"
    optimizer: OptimizerKind = "adamw"
    checkpoint_every: int | None = Field(default=None, gt=0)
    log_every: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        longest = min(self.longest_tokens or self.seq_len, self.seq_len)
        if self.mean_tokens and self.mean_tokens > longest:
            raise ValueError(
                f"mean_tokens={self.mean_tokens} is more than the longest sequence of {longest} tokens; raise seq_len and longest_tokens, or lower it"
            )
        return self

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        together = self.parallelism.micro_batch_size * self.parallelism.dp
        if self.batch_size % together and not getattr(self, "packing", False):  # packed rows are not sequences
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of micro_batch_size × data-parallel ranks = {together}; "
                f"{max(1, round(self.batch_size / together)) * together} is the nearest"
            )
        return self


class SFT(PostTrain):
    """Supervised fine-tuning on conversations, loss on the assistant's tokens only."""

    stage: Literal["sft"] = "sft"
    data: Task | str
    """A task with its answers, or a .jsonl file of {"messages": [...]}."""
    packing: bool = False
    """Sequences are joined into rows of `seq_len`, so that no token is padding."""


class Preference(PostTrain):
    """Direct preference optimisation (arXiv 2305.18290) on (chosen, rejected) pairs."""

    stage: Literal["preference"] = "preference"
    data: Task | str
    """A task (the rejected answer is one that the model itself gets wrong), or a .jsonl file of prompt, chosen, rejected."""
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    pairs: int = Field(default=256, gt=0)
    """Pairs to make from a task."""
    precompute_reference: bool = False
    """The reference's log-probabilities are computed once before training, which then holds no second model."""


class Reward(PostTrain):
    """A reward model: the language model with a scalar head, on (chosen, rejected) pairs (arXiv 2203.02155 §3.5)."""

    stage: Literal["reward"] = "reward"
    data: Task | str
    """A task, or a .jsonl file of prompt, chosen, rejected."""
    cross_entropy: Literal["full"] = "full"
    """A scalar head has no logits over a vocabulary."""


class Sampled(PostTrain):
    """What recipes share that train on what the model itself samples."""

    EXECUTION = PostTrain.EXECUTION | {"sampler", "sampler_gpus", "sampler_tp"}
    sampler: Literal["shared", "split"] = "shared"
    """Whether the trainer's accelerators also sample, in turns, or others do beside them (one step behind)."""
    sampler_gpus: int = Field(default=0, ge=0)
    """Accelerators that only sample, where the sampler is "split"."""
    sampler_tp: int = Field(default=1, gt=0)
    """Tensor-parallel ranks of one sampler."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What samples: the trainer's own `generate`, or a serving engine with CUDA graphs and continuous batching."""
    task: Task
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest completion; with its prompt it must fit into `seq_len`."""

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> Self:
        if self.max_new_tokens >= self.seq_len:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} leaves no room for a prompt; raise seq_len={self.seq_len}, or lower it")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _samplers(self) -> Self:
        if (self.sampler == "split") != (self.sampler_gpus > 0):
            raise ValueError(
                f"sampler={self.sampler!r} with sampler_gpus={self.sampler_gpus}: give a split sampler accelerators, and a shared one none of its own"
            )
        among = self.sampler_gpus or self.parallelism.gpus
        if among % self.sampler_tp:
            raise ValueError(
                f"sampler_tp={self.sampler_tp} does not divide the {among} accelerators that sample; use a divisor"
            )
        return self

    @property
    def gpus(self) -> int:
        """Processes of the trainer and of samplers beside it."""
        return self.parallelism.gpus + self.sampler_gpus


class GRPO(Sampled):
    """Group-relative policy optimisation (arXiv 2402.03300) against a verifiable reward."""

    stage: Literal["grpo"] = "grpo"
    prompts_per_step: int = Field(default=8, gt=0)
    group_size: int = Field(default=8, gt=1)
    """Completions of one prompt; their rewards are compared with each other."""
    temperature: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty to the starting model; 0 loads no reference."""
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    """Clipping of the probability ratio."""

    @model_validator(mode="after")
    def _whole_steps(self) -> Self:
        sampled = self.prompts_per_step * self.group_size
        if sampled % self.batch_size:
            raise ValueError(f"batch_size={self.batch_size} does not divide prompts_per_step×group_size={sampled}; set batch_size={sampled} for one update on what was just sampled")  # fmt: skip
        return self


class PPO(Sampled):
    """Proximal policy optimisation with a reward model, a reference and a critic of the policy's size (arXiv 2203.02155)."""

    stage: Literal["ppo"] = "ppo"
    reward: ModelInput
    """The model with a scalar head that scores completions."""
    prompts_per_step: int = Field(default=64, gt=0)
    """Prompts sampled at once, with one completion each."""
    passes: int = Field(default=1, gt=0)
    """Times that policy and critic train on what was sampled; optimiser steps of `batch_size` completions."""
