"""The accelerators that published rows name, however they spell them."""

from __future__ import annotations

import re
from functools import lru_cache

from bench.planner.table import Unplannable
from lablib.specs import Accelerator, catalog

NAMES: tuple[tuple[str, str], ...] = (
    (r"gb300", "gb300"), (r"gb200", "gb200"), (r"b300", "b300-sxm"), (r"b200", "b200-sxm"),
    (r"gh200.*(141|144)", "gh200-141gb"), (r"gh200", "gh200-96gb"), (r"h200", "h200-sxm"), (r"h800", "h800-sxm"),
    (r"h20", "h20-sxm"), (r"h100.*nvl(?!ink)", "h100-nvl"), (r"h100.*pcie", "h100-pcie"), (r"h100", "h100-sxm"),
    (r"a100.*pcie", "a100-pcie"), (r"a100.*40", "a100-sxm-40gb"), (r"a100", "a100-sxm"), (r"a800", "a800-sxm"),
    (r"v100", "v100-sxm"), (r"l40", "l40s"), (r"5090", "rtx-5090"), (r"4090", "rtx-4090"), (r"3090", "rtx-3090"),
    (r"a6000", "rtx-a6000"), (r"a40", "a40"), (r"a10", "a10"), (r"t4", "t4"),
    (r"mi355", "mi355x"), (r"mi325", "mi325x"), (r"mi300", "mi300x"), (r"mi250", "mi250x"),
    (r"gaudi3", "gaudi3"), (r"gaudi2", "gaudi2"), (r"trainium2|trn2", "trainium2"), (r"trainium|trn1", "trainium1"),
    (r"tpuv?7", "tpuv7x"), (r"tpuv?6", "tpuv6e"), (r"tpuv?5e|tpuv?5lite", "tpuv5e"), (r"tpuv?5", "tpuv5p"),
    (r"tpuv?4", "tpuv4"), (r"tpuv?3", "tpuv3"),
)  # fmt: skip
"""The first pattern found in the name without its punctuation decides: so "H20/H800" is an H800 and "GB200" no B200."""
SIZES = ((20, "t4"), (30, "rtx-4090"), (44, "a100-sxm-40gb"), (60, "rtx-a6000"), (90, "a100-sxm"), (130, "h20-sxm"),
         (160, "h200-sxm"), (200, "b200-sxm"), (1000, "b300-sxm"))  # fmt: skip
"""Where only a memory size is given ("24GB"): the commonest card of at most so many GiB. "1 GPU" is an A100 of 80 GB."""
_HBM2E_GB_S = 2400.0
"""Memory bandwidth of torchtitan's H100 with 96 GB of HBM2e (github pytorch/torchtitan benchmarks/README.md)."""


def accelerator_of(name: str) -> Accelerator:
    """The accelerator that a row names; a power cap ("…,500W") becomes its watts, by which the planner slows it.

    Raises `Unplannable` where the name says nothing.
    """
    return _accelerator(name.strip())


@lru_cache(maxsize=256)
def _accelerator(name: str) -> Accelerator:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    size = re.search(r"(\d+(?:\.\d+)?)\s*g(?:i)?b", name.lower())
    gib = float(size.group(1)) if size else None
    found = next((key for pattern, key in NAMES if re.search(pattern, plain)), "")
    if not found and gib:
        return _card(next(key for most, key in SIZES if gib <= most or most == SIZES[-1][0]))
    if not found:
        if re.fullmatch(r"(\d*gpus?|unknown)", plain):
            return _card("a100-sxm")
        raise Unplannable(f"unknown accelerator {name!r}")
    return _trimmed(_card(found), name, gib)


def _card(key: str) -> Accelerator:
    if key in catalog.accelerators:
        return catalog.accelerators[key]
    raise Unplannable(f"the catalogue has no accelerator {key!r}")


def _trimmed(card: Accelerator, name: str, gib: float | None) -> Accelerator:
    """The card as a row's name changes it: a power cap, HBM2e in place of HBM3, another memory size."""
    changes: dict[str, object] = {}
    cap = re.search(r"(\d{3,4})\s*w\b", name.lower())
    if cap and card.tdp_w and float(cap.group(1)) < card.tdp_w:
        changes["tdp_w"] = float(cap.group(1))
    if card.name == "h100-sxm" and "hbm2e" in name.lower():
        changes["bandwidth_gb_s"] = _HBM2E_GB_S
        changes["memory_gib"] = 95.0  # what torchtitan's logs print of this card
    elif gib and abs(gib / card.memory_gib - 1) > 0.1:
        changes["memory_gib"] = gib
    return card.replace(**changes) if changes else card
