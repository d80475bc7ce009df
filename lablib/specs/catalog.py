"""The catalogue: models, accelerators and prices as CSV files with a source in each row."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from statistics import median
from typing import Any, Generic, TypeVar

from lablib.specs.errors import LabError
from lablib.specs.hardware import Accelerator
from lablib.specs.model import MLA, SSM, ModelSpec, MoE
from lablib.specs.rope import RopeScaling

T = TypeVar("T")


class Table(Mapping[str, T], Generic[T]):
    """Named rows; an unknown name raises `LabError` with the nearest known ones."""

    def __init__(self, what: str, rows: Callable[[], dict[str, T]]) -> None:
        """`rows` is called once, at the first look-up."""
        self._what, self._make = what, rows

    @cached_property
    def _rows(self) -> dict[str, T]:
        return self._make()

    def __getitem__(self, name: str) -> T:
        if name not in self._rows:
            near = difflib.get_close_matches(name.lower(), self._rows, n=3, cutoff=0.3) or sorted(self._rows)[:3]
            raise LabError(f"There is no {self._what} {name!r} in the catalogue; the nearest are {', '.join(near)}")
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows


def rows(name: str) -> list[dict[str, str]]:
    """The rows of ``catalogue/<name>.csv`` as dictionaries of text."""
    text = files("lablib.specs").joinpath("catalogue", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


class Catalog:
    """What the lab knows by name; each table is read when first used."""

    def __init__(self) -> None:
        """Tables are lazy: making a catalogue reads no file."""
        self.models: Table[ModelSpec] = Table("model", _models)
        self.accelerators: Table[Accelerator] = Table(
            "accelerator", lambda: {row["name"]: _accelerator(row) for row in rows("accelerators")}
        )

    @cached_property
    def prices(self) -> list[dict[str, str]]:
        """Dated prices: provider, class, accelerator, pricing, usd_per_gpu_hour, read_on, source."""
        return rows("prices")

    def price(self, accelerator: str, pricing: str = "on-demand") -> tuple[float, float, float] | None:
        """(lowest, median, highest) US dollars an accelerator-hour among the listed providers, None where unlisted."""
        found = self._listed.get((accelerator, pricing))
        return (min(found), median(found), max(found)) if found else None

    @cached_property
    def _listed(self) -> dict[tuple[str, str], list[float]]:
        """Listed prices by accelerator and pricing."""
        found: dict[tuple[str, str], list[float]] = {}
        for row in self.prices:
            found.setdefault((row["accelerator"], row["pricing"]), []).append(float(row["usd_per_gpu_hour"]))
        return found


def _typed(row: dict[str, str], names: _Columns) -> dict[str, Any]:
    return {name: kind(row[name]) for name, kind in names.items() if row.get(name)}


def _flag(text: str) -> bool:
    return text == "1"


_Columns = Mapping[str, Callable[[str], Any]]
_MODEL: _Columns = {
    "family": str,
    "layers": int,
    "hidden": int,
    "heads": int,
    "kv_heads": int,
    "head_dim": int,
    "ffn": int,
    "vocab": int,
    "tied_embeddings": _flag,
    "max_seq_len": int,
    "rope_theta": float,
    "norm_eps": float,
    "attention_bias": _flag,
    "mlp_bias": _flag,
    "gated": _flag,
    "positions": str,
    "qk_norm": _flag,
    "sliding_window": int,
    "window_every": int,
}
_MOE: _Columns = {
    "experts": int,
    "top_k": int,
    "expert_ffn": int,
    "shared_experts": int,
    "dense_layers": int,
    "groups": int,
    "top_groups": int,
    "norm_topk": _flag,
    "every": int,
}
_MLA: _Columns = {
    "q_lora_rank": int,
    "kv_lora_rank": int,
    "qk_nope_head_dim": int,
    "qk_rope_head_dim": int,
    "v_head_dim": int,
}
_POSITIONS: _Columns = {
    "kind": str,
    "factor": float,
    "original": int,
    "low_freq_factor": float,
    "high_freq_factor": float,
    "mscale": float,
    "mscale_all_dim": float,
}

_ACCELERATOR: _Columns = {
    "kind": str,
    "runnable": _flag,
    "memory_gib": float,
    "bandwidth_gb_s": float,
    "scaleup_gb_s": float,
    "scaleup_gpus": int,
    "nic_gbit_s": float,
    "tdp_w": float,
}


def _models() -> dict[str, ModelSpec]:
    turned = {row["model"]: RopeScaling(**_typed(row, _POSITIONS)) for row in rows("positions")}
    return {row["name"]: _model(row, turned.get(row["name"])) for row in rows("models")}


def _model(row: dict[str, str], scaling: RopeScaling | None) -> ModelSpec:
    moe = MoE(**_typed(row, _MOE)) if row.get("experts") else None
    mla = MLA(**_typed(row, _MLA)) if row.get("kv_lora_rank") else None
    return ModelSpec(**_typed(row, _MODEL), rope_scaling=scaling, moe=moe, mla=mla, ssm=_ssm(row))


def _ssm(row: dict[str, str]) -> SSM | None:
    if not row.get("ssm_heads"):
        return None
    layers = tuple(int(i) for i in row["attention_layers"].split())
    return SSM(
        heads=int(row["ssm_heads"]),
        head_dim=int(row["ssm_head_dim"]),
        state=int(row["ssm_state"]),
        step_rank=int(row["ssm_step_rank"] or 0),
        attention_layers=layers,
    )


def _accelerator(row: dict[str, str]) -> Accelerator:
    peaks = {p: float(row[f"{p}_tflops"]) for p in ("bf16", "fp8", "fp4", "tf32", "fp32") if row.get(f"{p}_tflops")}
    measured = {p: float(row[f"measured_{p}_tflops"]) for p in ("bf16", "fp8") if row.get(f"measured_{p}_tflops")}
    return Accelerator(
        name=row["name"], peak_tflops=peaks, measured_tflops=measured, source=row["source"], **_typed(row, _ACCELERATOR)
    )


catalog = Catalog()
