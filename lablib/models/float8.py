"""Matrix products of a model's layers in 8-bit floating point, through torchao.

Activations and weights are E4M3 (4 bits of exponent, 3 of mantissa), gradients E5M2, which has the wider range (arXiv
2209.05433 §3); each tensor has one scale, its largest magnitude at the time. Of torchao's recipes this is the one with both
formats, and the one that Ada cards can run too ("rowwise" is E4M3 throughout and Hopper's). Weights, their names and their
checkpoints stay what they are: only the products change. torchao is imported by `convert` alone.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

from lablib.models.decoder import layer_number
from lablib.specs import LabError
from lablib.specs.recipe import FLOAT8_MULTIPLE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CAPABILITY = (8, 9)
"""Of the first cards with 8-bit tensor cores: Ada, then Hopper with 9.0 (CUDA C++ Programming Guide, compute capabilities)."""
RECIPE = "torchao tensorwise: E4M3 forward, E5M2 gradients, one dynamic scale a tensor"


def check_float8(device: torch.device) -> None:
    """Raises `LabError` where `device` has no 8-bit products, or torchao is not there."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        what = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        raise LabError(f"precision='fp8': {what} has no 8-bit matrix products; set precision='bf16', or run on Ada, Hopper or newer")  # fmt: skip
    if importlib.util.find_spec("torchao") is None:
        raise LabError("precision='fp8' needs torchao; pip install 'llm-lab[gpu]' where the run works, or set precision='bf16'")  # fmt: skip


def convert(model: PreTrainedModel, emulate: bool = False) -> list[str]:
    """Convert the linear modules inside `model`'s layers in place, not the head; gives their names.

    With `emulate` the same rounding happens on any device, and the products are fp32. Raises `LabError` where no module has
    sizes that fit.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    wanted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and layer_number(name) is not None and _fits(module)
    ]
    if not wanted:
        raise LabError(f"precision='fp8': no layer of this model has sizes that are multiples of {FLOAT8_MULTIPLE}; change hidden and ffn, or set precision='bf16'")  # fmt: skip
    convert_to_float8_training(
        model, config=Float8LinearConfig(emulate=emulate), module_filter_fn=lambda _, name: name in wanted
    )
    return wanted


def _fits(module: torch.nn.Linear) -> bool:
    return module.in_features % FLOAT8_MULTIPLE == 0 and module.out_features % FLOAT8_MULTIPLE == 0
