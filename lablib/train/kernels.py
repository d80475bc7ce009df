"""What of a recipe's precision, attention, loss and optimiser states goes together: asked before a run is queued, without torch.

Whether the machine has a kernel is asked where the run starts (`lablib.models.attention`, `lablib.models.float8`).
"""

from __future__ import annotations

from lablib.specs import LabError, Pretrain
from lablib.specs.recipe import EIGHT_BIT_BLOCK, FLOAT8_MULTIPLE


def check_kernels(recipe: Pretrain) -> None:
    """Raises `LabError` for kernels that cannot run so, with what to change."""
    if recipe.cross_entropy == "fused" and recipe.parallelism.tp > 1:
        raise LabError(f"cross_entropy='fused': under parallelism.tp={recipe.parallelism.tp} a rank holds a part of the head, whose gradients are not taken with the loss; set cross_entropy='chunked'")  # fmt: skip
    if recipe.cross_entropy == "fused" and recipe.parallelism.pp > 1:
        raise LabError(f"cross_entropy='fused': under parallelism.pp={recipe.parallelism.pp} the schedule asks for gradients after the loss; set cross_entropy='chunked'")  # fmt: skip
    if recipe.attention not in ("auto", "sdpa"):
        _check_attention(recipe)
    if recipe.precision == "fp8":
        _check_float8(recipe)
    if recipe.optimizer.kind == "adamw-8bit" and recipe.parallelism.tp > 1:
        _check_blocks(recipe)


def _check_attention(recipe: Pretrain) -> None:
    name, one = recipe.attention, recipe.parallelism
    for field in ("cp", "pp"):
        if (degree := getattr(one, field)) > 1:
            raise LabError(f"attention={name!r}: under parallelism.{field}={degree} masks are ours, which only sdpa takes; set attention='auto', or {field}=1")  # fmt: skip
    if one.sequence_parallel and one.tp > 1:
        raise LabError(f"attention={name!r}: under sequence_parallel masks are ours, which only sdpa takes; set attention='auto'")  # fmt: skip
    if recipe.model.recurrent:
        raise LabError(f"attention={name!r}: recurrent layers would take the documents that it is told of; set attention='auto'")  # fmt: skip
    if recipe.inspect_every:
        raise LabError(f"inspect_every={recipe.inspect_every}: a look inside reads attention's mask, which attention={name!r} has none of; set attention='auto', or leave inspect_every out")  # fmt: skip
    if name.startswith("flash") and recipe.precision == "fp32":
        raise LabError(f"attention={name!r}: its kernels compute in 16 bits; set precision='bf16', or attention='auto'")


def _check_float8(recipe: Pretrain) -> None:
    one, model = recipe.parallelism, recipe.model
    for field in ("tp", "pp"):
        if (degree := getattr(one, field)) > 1:
            raise LabError(f"precision='fp8': not under parallelism.{field}={degree} yet: shards of one tensor would be scaled apart; use dp_shard and cp, or precision='bf16'")  # fmt: skip
    reasons = {"moe": "experts are stacks of matrices, which torchao does not convert", "recurrent": "the scan of its layers has no products to convert"}  # fmt: skip
    for name, reason in reasons.items():
        if getattr(model, name):
            raise LabError(f"precision='fp8': not for family={model.family!r} ({name}): {reason}; set precision='bf16'")
    if model.family == "gpt2":
        raise LabError("precision='fp8': GPT-2's layers are no linear modules in transformers; set precision='bf16'")
    if recipe.seq_len // one.cp % FLOAT8_MULTIPLE:
        raise LabError(f"precision='fp8': seq_len={recipe.seq_len} over cp={one.cp} is no multiple of {FLOAT8_MULTIPLE}, as 8-bit products want; change seq_len")  # fmt: skip


def _check_blocks(recipe: Pretrain) -> None:
    model, tp = recipe.model, recipe.parallelism.tp
    sizes = {
        "heads × head_dim": model.heads * (model.mla.v_head_dim if model.mla else model.head_dim),
        "ffn": model.ffn,
    }
    if model.moe:
        sizes["moe.expert_ffn"] = model.moe.expert_ffn
    for name, size in sizes.items():
        if size % (tp * EIGHT_BIT_BLOCK):
            raise LabError(f"optimizer.kind='adamw-8bit': under parallelism.tp={tp} the model's {name}={size} is not cut between blocks of {EIGHT_BIT_BLOCK}; set kind='adamw-bf16', or tp=1")  # fmt: skip
