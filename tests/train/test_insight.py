"""What a run tells of itself, against direct counts, transformers' own outputs, and faults planted in it."""

from __future__ import annotations

import gc
import gzip
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from launch import on_ranks
from tiny import BATCH, MODEL, ONE, SEQ_LEN, new_run, prepare_data, recipe
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from lab.__main__ import main
from lablib.charts import cells
from lablib.data import PackedDataset
from lablib.data.loader import IGNORED
from lablib.data.tokenizer import load
from lablib.explorers import Monitor
from lablib.models.build import build_model
from lablib.models.decoder import decoder_layers, layer_number
from lablib.report import export
from lablib.runs import Recorder, Run, artefacts, recorder
from lablib.runs.orders import TRACE
from lablib.runs.traces import request, traces
from lablib.specs import Accelerator, Cluster, LabError, Midtrain, Mixture, Optimizer, Parallelism, Pretrain, Ref
from lablib.specs.model import MoE
from lablib.train.able import check
from lablib.train.batches import Batches, collate
from lablib.train.insight import collected_by_hand
from lablib.train.insight.layers import logit_max
from lablib.train.insight.stragglers import PATIENCE, SLOWER, Stragglers, ratios
from lablib.train.pretrain import pretrain

EXPERTS = 8
SPARSE = MODEL.replace(family="qwen3_moe", moe=MoE(experts=EXPERTS, top_k=2, expert_ffn=32))
SHARDED = Parallelism(dp_shard=2, micro_batch_size=2)
TENSOR = Parallelism(tp=2, micro_batch_size=4)
GENTLY: dict[str, Any] = {"optimizer": Optimizer(learning_rate=1e-5)}
LATE = 0.4
"""Seconds a step by which the planted slow rank is slower: its peer takes a tenth of that, or as long on crowded cores."""
READ, MLP, ROUTE = Batches.at, Qwen3MLP.forward, Qwen3MoeTopKRouter.forward


def slow(work: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """`work` that is late on rank 1, in `calls` calls a step."""

    def late(*args: Any) -> Any:
        time.sleep(LATE / calls if os.environ.get("RANK") == "1" else 0.0)
        return work(*args)

    return late


def to_the_first(self: Any, hidden: torch.Tensor) -> Any:
    logits, scores, chosen = ROUTE(self, hidden)
    return logits, scores, torch.arange(chosen.shape[1]).expand_as(chosen)


PLANTS: dict[str, list[tuple[Any, str, Any]]] = {
    "": [],
    "data": [(Batches, "at", slow(READ, 1))],
    "compute": [(Qwen3MLP, "forward", slow(MLP, 4))],
    "collapse": [(Qwen3MoeTopKRouter, "forward", to_the_first)],
}


def carry_out(jobs: list[tuple[Path, Pretrain, str]]) -> None:
    """One attempt at each run, with what is planted in it."""
    for path, made, plant in jobs:
        run = Recorder(path, int(os.environ.get("RANK", "0")))
        with ExitStack() as planted:
            for target, name, value in PLANTS[plant]:
                planted.enter_context(patch.object(target, name, value))
            with run.working():
                pretrain(made, run)
        if "MASTER_PORT" in os.environ:
            os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in Run.open(path).events() if event["kind"] == kind]


def measured(path: Path, step: int = 1, stream: str = "layers") -> dict[str, float]:
    return next(row for row in Run.open(path).rows(stream) if row["step"] == step)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("insight")


@pytest.fixture(scope="module")
def data(root: Path) -> Ref:
    return prepare_data(root)


@pytest.fixture(scope="module")
def looked(root: Path, data: Ref) -> Iterator[Path]:
    path = new_run(root, recipe(data, inspect_every=1))
    carry_out([(path, recipe(data, inspect_every=1), "")])
    yield path


@pytest.fixture(scope="module")
def plain(root: Path, data: Ref) -> Path:
    """Not looked into, and a dollar a second."""
    path = new_run(root, recipe(data))
    machine = Accelerator(name="priced", kind="cpu", memory_gib=4, bandwidth_gb_s=10)
    Cluster(accelerator=machine, gpus_per_node=1, price_per_gpu_hour=3600.0).save(path / "cluster.json")
    carry_out([(path, recipe(data), "")])
    return path


@pytest.fixture(scope="module")
def well(root: Path, data: Ref) -> Path:
    """Experts that are trained slowly: faster they collapse by themselves, for nothing balances them."""
    made = recipe(data, ONE, model=SPARSE, **GENTLY)
    path = new_run(root, made)
    carry_out([(path, made, "")])
    return path


@pytest.fixture(scope="module")
def spread(root: Path, data: Ref) -> dict[str, Path]:
    """Runs of two ranks: a slow one in two ways, a traced one, and two layouts that are looked at."""
    long = {"tokens": (PATIENCE + 2) * BATCH * SEQ_LEN, "checkpoint_every": 50, "eval_every": 50}
    wanted = {
        "data": (recipe(data, SHARDED, **long), "data"),
        "compute": (recipe(data, SHARDED, **long), "compute"),
        "sharded": (recipe(data, SHARDED, inspect_every=1), ""),
        "tensor": (recipe(data, TENSOR, inspect_every=1), ""),
        "experts": (recipe(data, Parallelism(ep=2, dp_shard=2, micro_batch_size=2), model=SPARSE, **GENTLY), ""),
    }
    paths = {name: new_run(root, made) for name, (made, _) in wanted.items()}
    (paths["sharded"] / TRACE).write_text(json.dumps({"steps": 2}))
    on_ranks(2, carry_out, [(paths[name], made, plant) for name, (made, plant) in wanted.items()])
    return paths


def first_batch(path: Path) -> Any:
    """The first step's sequences as one batch."""
    made = Run.open(path).recipe
    assert isinstance(made, Pretrain) and isinstance(made.data, Ref)
    folder = artefacts.resolve(made.data, path.parent)[0]
    windows = PackedDataset(folder, Mixture(), SEQ_LEN, "train", made.seed)
    return collate([windows[i] for i in range(BATCH)], True)


def test_bits_per_byte_are_those_of_the_text(looked: Path, data: Ref) -> None:
    labels = first_batch(looked).labels.flatten()
    counted = labels[labels != IGNORED].tolist()
    tokenizer = load(artefacts.resolve(data.replace(artefact="tokenizer"), looked.parent)[0])
    text = sum(len(tokenizer.decode([token], skip_special_tokens=True).encode()) for token in counted)
    row = Run.open(looked).rows()[0]
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * len(counted) / math.log(2) / text)


def test_ranks_agree_on_bits_per_byte(looked: Path, spread: dict[str, Path]) -> None:
    alone = [row["bits_per_byte"] for row in Run.open(looked).rows()]
    for name in ("sharded", "tensor"):
        assert [row["bits_per_byte"] for row in Run.open(spread[name]).rows()] == pytest.approx(alone, rel=1e-4)


def test_money_and_time_left(looked: Path, plain: Path) -> None:
    assert all("dollars" not in row for row in Run.open(looked).rows())
    left = [row["eta_seconds"] for row in Run.open(looked).rows()]
    assert left[-1] == 0 and all(seconds > 0 for seconds in left[:-1])
    spent = [row["dollars"] for row in Run.open(plain).rows()]
    assert 0 < spent[0] < spent[-1] < Run.open(plain).seconds + 1


def test_a_look_changes_nothing(data: Ref, looked: Path, plain: Path) -> None:
    models = [(run / "model" / "model.safetensors").read_bytes() for run in (plain, looked)]
    assert models[0] == models[1] and not Run.open(plain).rows("layers")
    assert recipe(data).science_hash == recipe(data, inspect_every=1).science_hash


def test_layers_are_as_transformers_gives_them(looked: Path) -> None:
    batch, model = first_batch(looked), build_model(MODEL, 0)
    out = model(batch.inputs, position_ids=batch.positions, use_cache=False, output_hidden_states=True)
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)
    loss.backward()
    row, hidden = measured(looked), out.hidden_states[1].detach()
    assert row["rms.0"] == pytest.approx(float(hidden.square().mean().sqrt()), rel=1e-5)
    assert row["max.0"] == pytest.approx(float(hidden.abs().max()), rel=1e-5)
    for number, layer in decoder_layers(model).items():
        norm = torch.stack([weight.grad.norm() for weight in layer.parameters()]).norm()  # type: ignore[union-attr]
        assert row[f"grad_norm.{number}"] == pytest.approx(float(norm), rel=1e-4)


def test_layouts_see_the_same_layers(looked: Path, spread: dict[str, Path]) -> None:
    alone = {name: value for name, value in measured(looked).items() if name != "time"}
    for name in ("sharded", "tensor"):
        found = {key: value for key, value in measured(spread[name]).items() if key != "time"}
        assert found == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("length", [5, 300])
def test_the_largest_logit_is_that_of_the_whole_product(length: int) -> None:
    draw = torch.Generator().manual_seed(length)
    query, key = torch.randn(2, 4, length, 8, generator=draw), torch.randn(2, 2, length, 8, generator=draw)
    query[:, :, -1] *= 30  # the largest is in the last block of queries
    key[:, :, length // 2] *= 9  # and what is not to be seen is larger yet
    logits = np.einsum("bhqd,bhkd->bhqk", query.numpy(), key.repeat_interleave(2, 1).numpy()) * 0.5
    causal = np.tril(np.ones((length, length), bool))
    assert float(logit_max(query, key, None, 0.5)) == pytest.approx(logits[:, :, causal].max(), rel=1e-5)
    own = causal & (np.arange(length)[:, None] // 3 == np.arange(length)[None] // 3)
    masks = torch.from_numpy(own)[None, None], torch.where(torch.from_numpy(own), 0.0, -torch.inf)[None, None]
    for mask in masks:
        assert float(logit_max(query, key, mask, 0.5)) == pytest.approx(logits[:, :, own].max(), rel=1e-5)


@pytest.mark.parametrize("part", ["data", "compute"])
def test_a_slow_rank_is_named(spread: dict[str, Path], part: str) -> None:
    named = events(spread[part], "straggler")
    assert {(event["rank"], event["part"]) for event in named} == {(1, part)}
    assert named[0]["at_step"] >= PATIENCE and named[0]["node"] == os.uname().nodename
    assert named[0]["ratio"] == Run.open(spread[part]).rows()[named[0]["at_step"] - 1]["straggle"] > SLOWER
    assert any("Rank 1" in note for note in Monitor(Run.open(spread[part])).view().notes)


def test_a_rank_is_slow_only_beside_its_peers_and_for_long() -> None:
    assert ratios([1.0, 1.0, 2.0, 6.0, 6.0], [0, 0, 0, 1, 1]) == [pytest.approx(2 / 3), pytest.approx(2 / 3), 2.0, 1, 1]
    ranks = Stragglers([0, 0, 0, 0])
    quiet, late = [0.0] * 4, [1.0, 1.0, 1.0, 1.5]
    for _ in range(PATIENCE - 1):
        assert ranks.observe(quiet, late, 2.0)[0] == []
    assert ranks.observe(quiet, [1.0] * 4, 2.0)[0] == []
    told = [ranks.observe(quiet, late, 2.0)[0] for _ in range(2 * PATIENCE)]
    assert [len(found) for found in told] == [0] * (PATIENCE - 1) + [1] + [0] * PATIENCE
    assert told[PATIENCE - 1][0].rank == 3 and told[PATIENCE - 1][0].part == "compute"
    light = Stragglers([0, 0])
    assert not any(light.observe([1e-3, 3e-3], [0.0, 0.0], 1.0)[0] for _ in range(2 * PATIENCE))


def test_a_trace_of_every_rank(spread: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(spread["sharded"])
    found = traces(run)
    assert [(trace.name, trace.rank) for trace in found] == [("trace-1", 0), ("trace-1", 1)]
    assert artefacts.resolve(run.ref("trace-1"), run.path.parent)[0] == run.path / "traces" / "step-00000001"
    for trace in found:
        spans = json.loads(gzip.decompress(trace.file.read_bytes()))["traceEvents"]
        steps = [span for span in spans if span.get("ph") == "X" and span["name"] == "Optimizer.step#AdamW.step"]
        assert len(steps) == 2 and "aten::mm" in {row["op"] for row in trace.ops}
        assert trace.total_ms >= sum(row["cpu_ms"] for row in trace.ops) > 0
    assert not (run.path / TRACE).exists()
    assert main(["trace", str(run.path), "--show", "--rank", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == 1
    assert main(["trace", str(run.path), "--show", "--rank", "7"]) == 2


def test_somebody_asks_a_working_run(
    root: Path, data: Ref, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For more steps than are left, and again what an earlier attempt traced: the run's end ends the trace."""
    monkeypatch.setattr(recorder, "LOOK", 0.0)
    path = new_run(root, recipe(data))
    artefacts.register(path, "trace-1", Recorder(path).folder("traces/step-00000001"), "trace")
    asking = threading.Thread(target=main, args=(["trace", str(path), "--steps", "50"],), daemon=True)
    asking.start()
    while not (path / TRACE).exists():
        time.sleep(0.01)
    carry_out([(path, recipe(data), "")])
    asking.join(200)
    shown = capsys.readouterr().out
    assert "aten::mm" in shown and "trace-1," in shown and not asking.is_alive()


def test_only_a_working_run_of_a_stage_that_can_is_traced(spread: dict[str, Path], data: Ref) -> None:
    with pytest.raises(LabError, match="only a working run"):
        request(Run.open(spread["sharded"]), 3)
    with pytest.raises(LabError, match="steps=0"):
        request(Run.open(spread["sharded"]), 0)
    with pytest.raises(LabError, match="prepare"):
        request(Run.open(spread["sharded"].parent / data.run), 3)
    further = Midtrain(
        model=MODEL, start=data, tokens="1M", seq_len=32, batch_tokens=4096, mixture={"weights": {"odd": 1.0}}
    )
    run = Run.open(new_run(spread["sharded"].parent, further))
    request(run, 3)
    assert Recorder(run.path).trace_requested == 3 and not (run.path / TRACE).exists()


@pytest.mark.parametrize("asked", ['{"steps": -3}', '{"steps": [3]}', '{"steps": "many"}', "{}", "[]", "{"])
def test_a_damaged_request_stops_no_run(root: Path, data: Ref, asked: str) -> None:
    run = Recorder(new_run(root, recipe(data)))
    (run.path / TRACE).write_text(asked)
    assert run.trace_requested == 0 and not (run.path / TRACE).exists()


def test_a_collapsing_router_is_named(root: Path, data: Ref, well: Path) -> None:
    made = recipe(data, ONE, model=SPARSE, **GENTLY)
    ill = new_run(root, made)
    carry_out([(ill, made, "collapse")])
    assert not events(well, "router_collapse") and measured(well, 1, "routers")["experts.0"] > 0.6
    row, line = measured(ill, 1, "routers"), Run.open(ill).rows()[0]
    assert row["experts.0"] == pytest.approx(2 / EXPERTS) and row["load_max.1"] == line["load_max"] == EXPERTS / 2
    assert row["dead.0"] == EXPERTS - 2 and line["dead_experts"] == 2 * (EXPERTS - 2)
    assert [(event["layer"], event["at_step"]) for event in events(ill, "router_collapse")] == [(0, 3), (1, 3)]
    view = Monitor(Run.open(ill)).view()
    assert any("router of layer 0" in note and f"{EXPERTS - 2} get none" in note for note in view.notes)
    assert {"layers_experts", "layers_load_max", "layers_dead", "layers_balance"} <= {
        figure.name for figure in view.charts
    }


def test_expert_parallel_ranks_see_all_experts(well: Path, spread: dict[str, Path]) -> None:
    for name in ("experts.0", "load_max.0", "experts.1", "balance.1"):
        assert measured(spread["experts"], 5, "routers")[name] == pytest.approx(
            measured(well, 5, "routers")[name], rel=1e-2
        )


def test_screens_and_reports_show_it(spread: dict[str, Path], tmp_path: Path) -> None:
    run = Run.open(spread["sharded"])
    view = Monitor(run).view()
    assert {"layers_rms", "layers_grad_norm", "layers_logit_max"} <= {figure.name for figure in view.charts}
    assert view.frames["layers_rms"]["layer"][:2] == [0, 1]
    assert "useful steps" in {row[0] for table in view.tables for row in table.rows}
    assert any("bits per byte" in note for note in view.notes)
    page = export([run], tmp_path / "report.html").read_text()
    assert "Where the time went" in page and "trace-1: where rank 0" in page and "aten::mm" in page


def test_a_heat_map_keeps_its_ends() -> None:
    rows = [{"step": step, "rms.0": 1.0 + step, "rms.1": 0.0, "rms.10": 2.0} for step in range(1, 501)]
    frame = cells(rows, "rms")
    assert frame["step"][0] == 1 and frame["step"][-1] == 500 and len(set(frame["step"])) == 80
    assert set(frame["layer"]) == {0, 10} and cells(rows, "max") == {}


def test_the_collector_is_as_it_was() -> None:
    for enabled in (True, False):
        gc.enable() if enabled else gc.disable()
        with pytest.raises(KeyError), collected_by_hand():
            assert not gc.isenabled() and gc.get_freeze_count() > 0
            raise KeyError
        assert gc.isenabled() is enabled and gc.get_freeze_count() == 0
    gc.enable()


def test_layers_are_found_by_their_names() -> None:
    names = {"model.layers.3.mlp.experts.7.w": 3, "transformer.h.11.attn": 11, "lm_head": None, "model.layers": None}
    assert {name: layer_number(name) for name in names} == names
    assert sorted(decoder_layers(build_model(MODEL, 0))) == [0, 1]


def test_a_compiled_model_is_not_looked_into(data: Ref) -> None:
    with pytest.raises(LabError, match="compile=False"):
        check(recipe(data, inspect_every=1, compile=True, optimizer=Optimizer()))
