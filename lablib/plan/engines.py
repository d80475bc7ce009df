"""Training frameworks: what each keeps in memory beside the model, and how it measures. Ours is `LAB`.

The same layout costs different memory under another framework, because it keeps other copies of the weights, sums
gradients in another precision, fuses other kernels and reports another figure. These conventions are read from each
project's code or papers, not fitted.
"""

from __future__ import annotations

from typing import Literal

from lablib.specs import Spec

OPTIMIZER_BYTES = {"adamw": 8.0, "adamw-8bit": 2.03125, "adamw-bf16": 4.0, "adafactor": 0.05, "lion": 4.0, "muon": 4.0, "soap": 28.0, "shampoo": 28.0, "sgd": 4.0}  # fmt: skip
"""Bytes of optimiser states a parameter. AdamW: two fp32 moments (arXiv 1711.05101); 8-bit: two bytes and two fp32 scales for
each block of 256 (arXiv 2110.02861 §2); bf16: two bf16 moments; Adafactor: one row and one column of each matrix (arXiv
1804.04235 §3), under a percent of it; Lion, Muon and SGD: one fp32 momentum (kellerjordan.github.io/posts/muon,
arXiv 2302.06675); SOAP: Adam's moments and, of both sides of a matrix, covariance and eigenvectors: 8 + 8·(r + 1/r) bytes
where one side is r times the other (arXiv 2409.11321 §4), 28 at r = 2; Shampoo: the same with inverse roots for eigenvectors (arXiv 2309.06497)."""


class Engine(Spec):
    """Bytes are for each parameter; shards of them follow the layout's `zero`."""

    name: str = "lab"
    weights: float = 4.0
    """The weights that live between steps (sharded from ZeRO-3 on)."""
    master: float = 0.0
    """An fp32 copy that the optimiser updates (sharded like the optimiser's states)."""
    grads: float = 4.0
    """Gradients as they accumulate (sharded from ZeRO-2 on)."""
    fused: bool = False
    """Norms, rotary embeddings and activation functions run as one kernel each whatever `compile` says."""
    source: str = ""
    loss_bytes: float = 12.0
    """Bytes of each logit at the fullest moment of a loss that is neither fused nor chunked."""
    fuses_head: bool = False
    """A fused loss takes in the head, a chunk of tokens at a time; elsewhere it is one kernel that keeps the logits."""
    masks_slices: bool = False
    """Attention over slices of sequences (context or sequence parallelism) is given a mask of all its scores."""
    vocab_parallel: bool = False
    """Each tensor-parallel rank holds the logits of its part of the vocabulary only."""
    dropout: bool = False
    """Hidden dropout keeps its masks."""
    rotated: bool = False
    """The fused projection's output stays beside the rotated queries and keys."""
    expert_tp: bool = False
    """Expert parallelism divides each expert over the tensor-parallel ranks too."""
    gradient_buffer: bool = False
    """Gradients live in one buffer that is never freed, not only from the backward pass on."""
    keeps_gathered: bool = False
    """With pipeline stages, FSDP's gathered weights and unsharded fp32 gradients stay for the whole step."""
    dispatch: float = 0.0
    """What dispatching tokens to experts takes in a recomputed layer's backward pass, over the activations it keeps:
    permuted copies and their gradients, in fp32 where they are weighted."""
    # time
    attention: Literal["math", "fa1", "fa2", "fa3", "cudnn"] = "fa2"
    """The attention kernel: unfused, FlashAttention's generation (fa1 with its Triton sibling) or cuDNN's."""
    layer_seconds: float | None = None
    """Host time to launch one dense layer's forward and backward kernels; None takes `Efficiency.layer_seconds`."""
    moe_seconds: float = 5e-3
    """Time of one mixture-of-experts layer, forward and backward, in which the accelerator waits for the host: sorting
    tokens, reading counts back, launching each expert (fitted on Megatron-Bridge's rows without CUDA graphs)."""
    overlap: float = 0.9
    """Share of compute time that data-parallel communication can hide behind; 0 where it runs after the backward pass."""
    tp_overlap: float = 0.0
    """Share of tensor-parallel communication hidden behind the matmuls it feeds."""
    ep_overlap: float = 0.0
    """Share of the experts' all-to-all hidden behind other work."""
    ep_once: bool = False
    """A token crosses the network once for all its experts in a domain (DeepEP, HybridEP), not once for each."""
    pp_overlap: float = 0.0
    """Share of the hand-over between pipeline stages that is hidden (interleaved schedules)."""
    pp_whole: bool = False
    """Every tensor-parallel rank hands the whole activation to the next stage (DeepSpeed's pipelines), not its slice."""
    quantised_gather: bool = False
    """Weights of fp8 training are gathered in one byte."""
    one_card: bool = False
    """Collectives over nodes use one network card of each node's ring (DeepSpeed in 2021), not all."""


LAB = Engine(
    fuses_head=True,
    masks_slices=True,
    source="lablib/train: fp32 weights, FSDP2 mixed precision or autocast (docs/planner.md)",
)
MEGATRON = Engine(
    name="megatron",
    weights=2,
    master=4,
    grads=4,
    fused=True,
    loss_bytes=8,
    vocab_parallel=True,
    dropout=True,
    rotated=True,
    expert_tp=True,
    gradient_buffer=True,
    attention="cudnn",
    tp_overlap=0.95,
    ep_overlap=0.77,
    ep_once=True,
    pp_overlap=0.95,
    quantised_gather=True,
    source="Megatron-LM: bf16 weights, fp32 main gradients, fp32 master and moments (18 bytes, 6 + 12/d with the distributed optimizer: docs/source/api-guide/dist_optimizer)",
)
MEGATRON_DEEPSPEED = MEGATRON.replace(
    name="megatron-deepspeed",
    grads=2,
    master=8,
    attention="math",
    overlap=0.0,
    tp_overlap=0.0,
    pp_overlap=0.0,
    pp_whole=True,
    source="Megatron-DeepSpeed with ZeRO-1: half-precision weights and gradients; master, fp32 gradient and moments sharded (arXiv 1910.02054 §5.1)",
)
NANOTRON = Engine(
    name="nanotron",
    weights=2,
    master=4,
    grads=6,
    gradient_buffer=True,
    loss_bytes=8,
    vocab_parallel=True,
    overlap=0.0,
    source="nanotron: bf16 weights and gradients, fp32 gradient accumulators, ZeRO-1 master and moments",
)
BF16 = Engine(
    name="bf16",
    weights=2,
    grads=2,
    loss_bytes=10,
    source="everything in bf16, the optimiser's states too (torchtune, litgpt bf16-true)",
)
MEASURED = Literal["allocated", "reserved", "device"]
