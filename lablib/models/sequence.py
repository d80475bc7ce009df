"""Sequence parallelism: between the matrix products of tensor parallelism, each rank keeps a slice of the sequence.

Norms and residuals then hold 1/tp of the tokens, and each all-reduce becomes a reduce-scatter and an all-gather
(arXiv 2205.05198 §4.2). It is a change of transformers' tensor-parallel plan; the model's own code stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES
from transformers.distributed.tensor_parallel import (
    ColwiseParallel,
    EmbeddingParallel,
    RowwiseParallel,
    TensorParallelLayer,
)

from lablib.specs import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK = frozenset({"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})
_GATHERED, _SCATTERED, _EMBEDDED, _HEAD = (
    "sequence_gathered",
    "sequence_scattered",
    "sequence_embedded",
    "sequence_head",
)
NORMS = ("model.layers.*.input_layernorm", "model.layers.*.post_attention_layernorm", "model.norm")
"""Each rank's norms see its slice alone, so that their gradients are partial."""


def _whole(x: Any, mesh: Any) -> DTensor:
    return DTensor.from_local(x, mesh, [Shard(1)], run_check=False).redistribute(placements=[Replicate()])


class _Gathered(TensorParallelLayer):
    """Gives a block (attention, feed-forward) the whole sequence: one all-gather for all its first products."""

    def transform_inputs_pre_forward(self, module: Any, args: Any, kwargs: Any, mesh: Any) -> Any:
        if args:
            return (_whole(args[0], mesh), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": _whole(kwargs["hidden_states"], mesh)}


class _Head(ColwiseParallel):
    """A vocabulary-parallel head over the whole sequence; its logits are gathered."""

    def __init__(self) -> None:
        super().__init__(output_layouts=Replicate())

    def transform_inputs_pre_forward(self, module: Any, args: Any, kwargs: Any, mesh: Any) -> Any:
        return super().transform_inputs_pre_forward(module, (_whole(args[0], mesh), *args[1:]), kwargs, mesh)


class _Embedded(EmbeddingParallel):
    """A vocabulary-parallel embedding whose sum over ranks is scattered along the sequence."""

    def transform_output_post_forward(self, module: Any, output: Any, mesh: Any) -> Any:
        if not isinstance(output, DTensor):
            output = DTensor.from_local(output, mesh, [Partial()], run_check=False)
        return output.redistribute(placements=[Shard(1)]).to_local()


ALL_PARALLEL_STYLES.register(_GATHERED, _Gathered())
ALL_PARALLEL_STYLES.register(_SCATTERED, RowwiseParallel(input_layouts=Shard(-1), output_layouts=Shard(1)))
ALL_PARALLEL_STYLES.register(_EMBEDDED, _Embedded())
ALL_PARALLEL_STYLES.register(_HEAD, _Head())


def sequence_plan(model: PreTrainedModel, plan: dict[str, str]) -> dict[str, str]:
    """The tensor-parallel `plan` of a model with the sequence split between its products.

    Raises `LabError` for an architecture whose layers are not two norms, attention and a dense feed-forward.
    """
    blocks = {name for layer in model.model.layers for name, _ in getattr(layer, "named_children", list)()}
    rows = {name for name, style in plan.items() if style == "rowwise"}
    wanted = {"model.layers.*.self_attn.o_proj", "model.layers.*.mlp.down_proj"}
    if blocks != _BLOCK or rows != wanted:
        raise LabError(f"parallelism.sequence_parallel=True: {model.config.model_type}'s layers are not two norms, attention and a dense feed-forward; set sequence_parallel=False")  # fmt: skip
    changed = {"embedding_rowwise": _EMBEDDED, "rowwise": _SCATTERED, "colwise_gather_output": _HEAD}
    split = {name: changed.get(style, style) for name, style in plan.items()}
    return split | {"model.layers.*.self_attn": _GATHERED, "model.layers.*.mlp": _GATHERED}
