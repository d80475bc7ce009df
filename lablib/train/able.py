"""What the trainer can run of what a recipe can say: asked before a run is queued, without torch, and again when it starts."""

from __future__ import annotations

from typing import Any, get_args

from lablib.specs import Balance, LabError, ModelSpec, Parallelism, Pretrain
from lablib.specs.balance import SELECTS_BY_BIAS
from lablib.specs.recipe import OptimizerKind
from lablib.train.kernels import check_kernels

PLANLESS = {
    "tp": {"gpt2", "bamba", "jamba", "granitemoehybrid", "rwkv"},
    "cp": {"gemma2", "rwkv"},
    "pp": {"gpt2", "nemotron", "gemma2", "rwkv"},
    "sequence_parallel": {"gpt2", "gemma2", "gemma3", "olmo2", "rwkv"},
}
"""Kinds of parallelism → families that transformers, or our change of it, cannot lay out so. (Its plans of hybrids divide
the head or the experts alone: every rank of a tensor-parallel group would do the work of all layers.)"""


def check(recipe: Pretrain) -> None:
    """Raises `LabError` for what the trainer cannot do, before anything is loaded."""
    check_layout(recipe.model, recipe.parallelism)
    if recipe.mup:
        _check_scaling(recipe.model)
    if recipe.balance:
        _check_balance(recipe.model.family, recipe.balance)
    for name, value, done in _settings(recipe):
        if value not in done:
            raise LabError(f"{name}={value!r}: the trainer does not do this yet, only the planner does; use {' or '.join(map(repr, done))}")  # fmt: skip
    check_kernels(recipe)
    check_batch(recipe)
    if recipe.inspect_every and recipe.compile:
        raise LabError(f"inspect_every={recipe.inspect_every}: its hooks would compile the model anew at every look; set compile=False, or leave it out")  # fmt: skip
    if recipe.compile and recipe.model.traits.recurrent:
        raise LabError("compile=True: transformers runs RWKV's recurrence as a loop over tokens, each of which would be compiled; set compile=False")  # fmt: skip
    if recipe.document_mask and recipe.model.recurrent:
        raise LabError(f"document_mask=True: layers of family={recipe.model.family!r} carry their state across documents, which transformers cuts in no kernel that runs everywhere; set document_mask=False")  # fmt: skip


def _settings(recipe: Pretrain) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """(field, value, what the trainer can run) of everything that can be planned before it can be trained."""
    return [
        ("precision", recipe.precision, ("bf16", "fp32", "fp8")),
        ("recompute", recipe.recompute, ("none", "selective", "full", "budget")),
        ("optimizer.kind", recipe.optimizer.kind, get_args(OptimizerKind)),
        (
            "cross_entropy",
            recipe.cross_entropy,
            ("full",) if recipe.model.family == "gemma2" else ("full", "chunked", "fused"),
        ),
        ("offload", recipe.offload, ("none",)),
    ]


def _check_balance(family: str, balance: Balance) -> None:
    biased = family in SELECTS_BY_BIAS
    if balance.bias_rate and not biased:
        raise LabError(f"balance.bias_rate={balance.bias_rate}: routers of family={family!r} have no bias to select by; set balance.loss instead, or use {' or '.join(SELECTS_BY_BIAS)}")  # fmt: skip
    if balance.z_loss and biased:
        raise LabError(f"balance.z_loss={balance.z_loss}: routers of family={family!r} have sigmoid scores, no softmax whose denominator could drift; leave it out")  # fmt: skip


def _check_scaling(model: ModelSpec) -> None:
    reasons = {
        "mla": "latent vectors keep their width where the model grows, so that what reads them scales otherwise",
        "ssm": "the scan of a Mamba layer has sizes that do not follow the model's width",
        "gpt2": "the last matrices of its blocks are not told from the others",
        "rwkv": "its matrices begin orthogonal, not normal with init_std",
    }
    for name, reason in reasons.items():
        if model.family == name or getattr(model, name, None):
            raise LabError(f"mup: not for a model of family={model.family!r} ({name}): {reason}; leave mup out")


def check_layout(model: ModelSpec, parallelism: Parallelism) -> None:
    """Raises `LabError` for a layout that this model or this version cannot run, with what to change."""
    one = parallelism
    for kind, families in PLANLESS.items():
        value, without = getattr(one, kind), getattr(Parallelism(), kind)
        if value != without and model.family in families:
            raise LabError(f"parallelism.{kind}={value}: there is no plan of this kind for family={model.family!r}; set {kind}={without}")  # fmt: skip
    for name in ("heads", "kv_heads", "ffn"):
        size = getattr(model, name)
        if size % one.tp:
            raise LabError(f"parallelism.tp={one.tp} does not divide the model's {name}={size}; use a tp that divides {model.heads} heads, {model.kv_heads} kv_heads and ffn {model.ffn}")  # fmt: skip
    if one.ep > 1:
        _check_experts(model, one)
    if one.pp > 1:
        _check_stages(model, one)
    elif one.virtual_stages > 1:
        raise LabError(f"parallelism.virtual_stages={one.virtual_stages} needs a pipeline; set pp above 1")
    if one.cp > 1 and model.recurrent:
        raise LabError(f"parallelism.cp={one.cp}: only layers of attention can be split over the sequence, this model has recurrent layers; set cp=1")  # fmt: skip
    if one.sequence_parallel and (model.moe or model.ssm or model.mla):
        raise LabError("parallelism.sequence_parallel=True: only layers of attention and a dense feed-forward are split along the sequence yet; set sequence_parallel=False")  # fmt: skip


def _check_experts(model: ModelSpec, one: Parallelism) -> None:
    experts = model.moe.experts if model.moe else 0
    if not experts or experts % one.ep:
        raise LabError(f"parallelism.ep={one.ep} does not divide the model's {experts} experts; set ep to a divisor of them, or 1")  # fmt: skip
    if one.ep % one.tp:
        raise LabError(f"parallelism.ep={one.ep} is no multiple of tp={one.tp}: the ranks of a tensor-parallel group share their tokens and must lie in one expert group; set ep={one.tp} or a multiple")  # fmt: skip


def _check_stages(model: ModelSpec, one: Parallelism) -> None:
    stages = one.pp * one.virtual_stages
    if model.layers < stages:
        raise LabError(f"parallelism.pp={one.pp} × virtual_stages={one.virtual_stages} is more than the model's layers={model.layers}; lower one of them")  # fmt: skip
    if model.ssm:
        raise LabError(f"parallelism.pp={one.pp}: stages are cut from layers of attention, this model has Mamba layers; set pp=1")  # fmt: skip
    if one.pp_schedule == "zero-bubble" and one.dp * one.cp > 1:
        raise LabError("parallelism.pp_schedule='zero-bubble': torch's schedule fails in the gradient of weights under FSDP2; set pp_schedule='1f1b', or dp_replicate, dp_shard and cp to 1")  # fmt: skip


def check_batch(recipe: Pretrain) -> None:
    """Raises `LabError` where a step's sequences cannot be cut as the layout wants."""
    one = recipe.parallelism
    slices = one.cp * (one.tp if one.sequence_parallel else 1)
    if recipe.seq_len % slices:
        raise LabError(f"seq_len={recipe.seq_len} is no multiple of the {slices} slices that cp and sequence_parallel cut it into; change seq_len or cp")  # fmt: skip
    if one.pp == 1:
        return
    _check_rounds(recipe)
    if recipe.recompute != "none" and one.pp_schedule == "zero-bubble":
        raise LabError(f"recompute={recipe.recompute!r}: zero-bubble computes a layer's input and weight gradients apart, which recomputation does not allow; set recompute='none' or pp_schedule='1f1b'")  # fmt: skip
    if recipe.compile and one.pp_schedule == "zero-bubble":
        raise LabError("compile=True: zero-bubble computes a layer's input and weight gradients apart, which compiled layers give at once; set compile=False or pp_schedule='1f1b'")  # fmt: skip


def _check_rounds(recipe: Pretrain) -> None:
    one = recipe.parallelism
    for _, tokens in recipe.cut.stages:
        count = tokens // recipe.seq_len // (one.dp * one.micro_batch_size)
        if one.pp_schedule != "gpipe" and (count < one.pp or count % max(1, count // one.pp)):
            field = "batch_tokens" if tokens == recipe.step_tokens else "batch_ramp.start"
            raise LabError(f"a step of {count} micro-batches does not fill parallelism.pp={one.pp} stages in rounds; make {field} a multiple of {one.pp} × {one.dp * one.micro_batch_size} × seq_len, or set pp_schedule='gpipe'")  # fmt: skip
