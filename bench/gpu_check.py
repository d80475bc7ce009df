"""Every GPU path that exists, once, on one GPU, with a record of what was exercised (``make gpu-check``).

Each check runs a real stage of the lab in a temporary folder and is timed; a failure is recorded and the next one runs. What
a card or an installation has not is recorded as left out, with the reason. Without a GPU it says so and exits with 2. The record goes to ``bench/results/gpu_check.json`` (or the path given).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from lablib.models.build import build_model
from lablib.models.float8 import convert
from lablib.models.layout import Place
from lablib.plan import calibrate
from lablib.runs import Recorder, Run
from lablib.runs.orders import TRACE
from lablib.runs.provenance import hardware, versions
from lablib.runs.traces import traces
from lablib.specs import (  # fmt: skip
    GRPO,
    SFT,
    LabError,
    LoRA,
    ModelSpec,
    Optimizer,
    Parallelism,
    Prepare,
    Pretrain,
    Recipe,
    Task,
    write_atomic,
)
from lablib.specs.recipe import Attention
from lablib.stages import execute
from lablib.train.batches import Batch
from lablib.train.distributed import World
from lablib.train.optimizer import build_optimizer
from lablib.train.pretrain import check_machine
from lablib.train.step import Stepper

MODEL = ModelSpec(family="qwen3", layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=768, vocab=1024)
OPTIMIZERS = ("adamw-8bit", "adamw-bf16", "muon", "soap", "lion", "adafactor")
TASK = Task(name="sums", generator="chain_sum", params={"min_terms": 2, "max_terms": 2}, train=128, test=32)


def stage(root: Path, recipe: Recipe, traced: int = 0) -> Run:
    """Carry a recipe out in this process, with its first `traced` steps traced."""
    recorder = Recorder.create(root, recipe)
    if traced:
        write_atomic(recorder.path / TRACE, json.dumps({"steps": traced}))
    with recorder.working():
        execute(recorder.recipe, recorder)
    return Run(recorder.path)


class LeftOut(Exception):
    """This machine has not what a check needs."""


def recipe_of(data: Run, **changes: Any) -> Pretrain:
    """Forty steps of the small model."""
    return Pretrain(
        model=MODEL,
        data=data.data,
        tokens=40 * 16384,
        seq_len=512,
        batch_tokens=16384,
        parallelism=Parallelism(micro_batch_size=8),
        **{"precision": "bf16", **changes},
    )


def pretrain(root: Path, data: Run, traced: int = 0, **changes: Any) -> dict[str, Any]:
    """The last loss, the median speed, the peak memory and what ran. Raises `LeftOut` where this machine cannot run it."""
    recipe = recipe_of(data, **changes)
    try:
        check_machine(recipe, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except LabError as error:
        raise LeftOut(str(error)) from None
    run = stage(root, recipe, traced)
    rows = run.rows()
    return {
        "loss": rows[-1]["loss"],
        "tokens_per_second": sorted(row["tokens_per_second"] for row in rows)[len(rows) // 2],
        "memory_gib": rows[-1]["memory_gib"],
        "run": run.id,
        "ran": run.manifest["notes"]["ran"],
    }


def resumed(root: Path, data: Run) -> dict[str, Any]:
    """A run that writes checkpoints beside the training, is stopped half-way and goes on: how far it ends from one that was
    not stopped."""
    recipe = recipe_of(data, async_checkpoints=True, checkpoint_every=10)
    whole, path = stage(root, recipe), Recorder.create(root, recipe).path
    log = Recorder.log

    def stopping(self: Recorder, step: int, stream: str = "train", **values: Any) -> None:
        log(self, step, stream, **values)
        if stream == "train" and step == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    for attempt in range(2):
        recorder = Recorder(path, 0)
        with patch.object(Recorder, "log", log if attempt else stopping), recorder.working():
            execute(recipe, recorder)
    losses = [[row["loss"] for row in run.rows()] for run in (whole, Run(path))]
    assert len(losses[0]) == len(losses[1]) == 40
    worst = max(abs(one - other) for one, other in zip(*losses, strict=True))
    assert worst < 0.05, losses
    return {"largest difference of a loss": worst}


def sharded(root: Path, eight: bool = False) -> dict[str, Any]:
    """FSDP2 over one GPU, in bf16 or 8-bit products, with the fused loss, beside a chunked one: ten steps of both."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{root / f'meet-{eight}'}", rank=0, world_size=1)
    try:
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(MODEL.vocab, (8, 512), generator=draw).to(device)
        batch = Batch(ids, ids.roll(-1, 1), torch.arange(512, device=device).expand(8, -1).contiguous())
        found = {}
        for loss in ("chunked", "fused"):
            model = build_model(MODEL, 0).to(device).train()
            if eight:
                convert(model)
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            for module in [*model.model.layers, model]:
                fully_shard(module, mp_policy=policy)
            place = Place.of(0, Parallelism())
            optimizer = build_optimizer(model, Optimizer(learning_rate=1e-3))
            step = Stepper(model, optimizer, World(0, 1, device), place, 1.0, False, cross_entropy=loss)  # type: ignore[arg-type]
            found[loss] = [step([batch]).loss for _ in range(10)]
    finally:
        dist.destroy_process_group()
    assert max(abs(a - b) for a, b in zip(*found.values(), strict=True)) < 0.05, found
    return {name: losses[-1] for name, losses in found.items()}


def served(base: Run) -> list[int]:
    """vLLM loads the trained model and continues a prompt as transformers does."""
    if importlib.util.find_spec("vllm") is None:
        raise LeftOut("vllm is not installed")
    from transformers import AutoModelForCausalLM
    from vllm import LLM, SamplingParams

    folder, prompt = str(base.path / "model"), [5, 6, 7, 8]
    engine = LLM(folder, skip_tokenizer_init=True, gpu_memory_utilization=0.3, enforce_eager=True, dtype="float32")
    [made] = engine.generate(
        [{"prompt_token_ids": prompt}], SamplingParams(temperature=0, max_tokens=8, detokenize=False)
    )
    model = AutoModelForCausalLM.from_pretrained(folder).cuda()
    ids = model.generate(torch.tensor([prompt]).cuda(), max_new_tokens=8, do_sample=False)[0, 4:].tolist()
    found = list(made.outputs[0].token_ids)
    assert found[:4] == ids[:4], (found, ids)
    return found


def checks(root: Path) -> dict[str, Callable[[], Any]]:
    """Name → what to do; later ones use what earlier ones left."""
    made: dict[str, Run] = {}
    corpus = str(Path(torch.__file__).parent / "nn")

    def prepare() -> str:
        made["data"] = stage(root, Prepare(corpus=corpus, vocab=1024))
        return made["data"].id

    def base() -> dict[str, Any]:
        found = pretrain(root, made["data"])
        made["base"] = Run(root / found["run"])
        return found

    def more(**changes: Any) -> dict[str, Any]:
        return pretrain(root, made["data"], **changes)

    def eight_sharded() -> dict[str, Any]:
        try:
            check_machine(recipe_of(made["data"], precision="fp8"), torch.device("cuda"))
        except LabError as error:
            raise LeftOut(str(error)) from None
        return sharded(root, eight=True)

    def inside() -> dict[str, Any]:
        run = Run(root / pretrain(root, made["data"], traced=3, inspect_every=10)["run"])
        (found,) = traces(run)
        assert found.by == "device_ms" and found.memory is not None and "logit_max.3" in run.rows("layers")[-1]
        return {"top operators": [row["op"] for row in found.ops[:5]], "layers": run.rows("layers")[-1]}

    def post(kind: type[SFT] | type[GRPO], **fields: Any) -> str:
        return stage(root, kind(model=made["base"].model, steps=3, seq_len=128, precision="bf16", **fields)).id

    return {
        "calibrate on the GPU": lambda: calibrate().accelerator.measured_tflops,
        "prepare": prepare,
        "pretrain bf16": base,
        "pretrain fp32": lambda: pretrain(root, made["data"], precision="fp32"),
        "pretrain bf16, selective recomputation": lambda: pretrain(root, made["data"], recompute="selective"),
        "pretrain bf16, full recomputation": lambda: pretrain(root, made["data"], recompute="full"),
        "pretrain bf16, torch.compile": lambda: pretrain(root, made["data"], compile=True),
        **{f"pretrain bf16, {name}": partial(more, attention=name) for name in get_args(Attention)[1:]},
        **{f"pretrain bf16, {name} cross entropy": partial(more, cross_entropy=name) for name in ("chunked", "fused")},
        "pretrain bf16, fused cross entropy, torch.compile": lambda: more(cross_entropy="fused", compile=True),
        **{f"pretrain bf16, {kind}": partial(more, optimizer=Optimizer(kind=kind)) for kind in OPTIMIZERS},
        "pretrain fp8": lambda: more(precision="fp8"),
        "pretrain fp8, torch.compile, selective recomputation": lambda: more(
            precision="fp8", compile=True, recompute="selective"
        ),
        "checkpoints beside training, stopped and resumed": lambda: resumed(root, made["data"]),
        "FSDP2 on one GPU": lambda: sharded(root),
        "FSDP2 on one GPU, fp8": eight_sharded,
        "vLLM serves what was trained": lambda: served(made["base"]),
        "pretrain bf16, traced and looked into": inside,
        "SFT bf16": lambda: post(SFT, data=TASK, batch_size=8),
        "SFT bf16, LoRA": lambda: post(SFT, data=TASK, batch_size=8, lora=LoRA()),
        "GRPO bf16": lambda: post(GRPO, task=TASK, prompts_per_step=4, group_size=4, max_new_tokens=8),
    }


def main(out: Path) -> int:
    """Run all checks; gives 0 where all that this machine can run passed, 1 where some failed, 2 without a GPU."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was exercised")
        return 2
    results = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAB_HOME"] = str(Path(folder) / "home")
        for name, check in checks(Path(folder) / "runs").items():
            begun = time.perf_counter()
            try:
                row: dict[str, Any] = {"check": name, "passed": True, "found": check()}
            except LeftOut as why:
                row = {"check": name, "passed": None, "found": str(why)}
            except Exception:  # one broken path must not hide the others
                row = {"check": name, "passed": False, "found": traceback.format_exc()[-2000:]}
            row["seconds"] = round(time.perf_counter() - begun, 1)
            print({True: "ok  ", None: "none", False: "FAIL"}[row["passed"]], name, f"{row['seconds']} s", flush=True)
            results.append(row)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"hardware": hardware(), "versions": versions(), "checks": results}, indent=1, default=str)
    )
    return 0 if all(row["passed"] is not False for row in results) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench/results/gpu_check.json")))
