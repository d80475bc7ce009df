"""The pretraining and mid-training stages: put the parts together, train, leave a plain Hugging Face folder."""

from __future__ import annotations

from typing import Any

import torch

from lablib.data import PackedDataset
from lablib.models.attention import attend, check_attention
from lablib.models.build import initialise, initialise_derived
from lablib.models.compiled import BUDGET, compile_layers
from lablib.models.float8 import check_float8, convert
from lablib.models.folder import save_model
from lablib.models.layout import Laid, Links, Place, distribute, whole_model
from lablib.models.mup import scale_initial, scales
from lablib.models.recompute import apply_recompute
from lablib.models.seeded import skeleton
from lablib.plan.found import CHINCHILLA
from lablib.plan.params import count
from lablib.plan.pretraining import job
from lablib.plan.work import training_flops
from lablib.runs import Recorder, Run
from lablib.specs import Midtrain, Mixture, Pretrain
from lablib.specs.mixtures import Curriculum
from lablib.train import rng
from lablib.train.able import check
from lablib.train.batches import Batches
from lablib.train.checkpoint import Checkpoints
from lablib.train.distributed import World, joined
from lablib.train.heldout import Heldout
from lablib.train.insight import Insight
from lablib.train.loop import Parts, train
from lablib.train.meter import Meter
from lablib.train.optimizer import build_optimizer
from lablib.train.pipeline import Pipeline
from lablib.train.ran import ran
from lablib.train.routing import Routing
from lablib.train.source import Source, find_source, token_bytes
from lablib.train.stability import Guard
from lablib.train.start import Start
from lablib.train.step import Stepper

PATIENCE = 60.0
"""Seconds that a run which fails waits for the checkpoint that it is writing: other ranks may be gone."""


def pretrain(recipe: Pretrain, run: Recorder) -> None:
    """Train `recipe.model` and register the artefact "model"; every rank of the layout calls it.

    Continues from the newest whole checkpoint in the run folder, whatever layout wrote it. Where the run is asked to stop
    it saves and returns without the artefact. Raises `LabError` for a layout or input that cannot be used.
    """
    check(recipe)
    with joined(recipe.gpus, recipe.threads) as world:
        check_machine(recipe, world.device)
        source = find_source(recipe, run, world)
        if source is None:
            return
        run.enter("running")
        parts = assemble(recipe, run, world, source)
        try:
            finished = train(recipe, run, parts)
        except BaseException as error:
            try:
                parts.checkpoints.wait(PATIENCE)
            except Exception as other:
                error.add_note(f"The checkpoint that was being written failed too: {other}")
            raise
        if finished:
            target = run.path / "model"
            model = whole_model(parts.stepper.model, parts.stepper.links)
            if model is not None:
                save_model(model, source.tokenizer, target)
            run.artefact("model", target, kind="model")
        world.wait()


def assemble(recipe: Pretrain, run: Recorder, world: World, source: Source) -> Parts:
    """Everything that the loop drives, on this rank; the weights come with `loop.resume`."""
    place, layout = Place.of(world.rank, recipe.parallelism), recipe.parallelism
    links = Links.of(layout, world.device)
    laid = prepare_model(recipe, world, links)
    model = laid.model
    run.note(ran=ran(recipe, model, world.device))
    rng.seed(recipe.seed + place.dp_rank)
    autocast = recipe.precision != "fp32" and layout.dp * layout.cp == 1
    optimizer = build_optimizer(model, recipe.optimizer, rates(recipe, model))
    data = PackedDataset(source.data, source.mixture, recipe.seq_len, "train", recipe.seed)
    data.check_epochs(recipe.cut.tokens)
    per_step, mask = recipe.step_tokens // recipe.seq_len, recipe.document_mask
    keep = recipe.keep_checkpoints, recipe.stability.rewind, recipe.permanent_every
    lengths = token_bytes(source.tokenizer, recipe.model.vocab)
    checkpoints = Checkpoints(run.folder("checkpoints"), world, *keep, recipe.async_checkpoints)
    return Parts(
        Stepper(
            model,
            optimizer,
            world,
            place,
            recipe.optimizer.grad_clip,
            autocast,
            links,
            laid.partial,
            pipeline(recipe, laid, links, world, autocast),
            layout.zero,
            recipe.cross_entropy,
            recipe.z_loss,
            routing(recipe, model, world, place, links),
        ),
        Batches(data, place, per_step, layout.micro_batch_size, mask, world.device),
        heldout(recipe, source, lengths),
        checkpoints,
        meter(recipe, run, world),
        Guard(recipe.stability, run, world, per_step, shifts(source.mixture, recipe.seq_len)),
        Insight(recipe, run, world, model, optimizer, lengths),
        lambda: restart(recipe, source.start(), model, optimizer, checkpoints),
    )


def check_machine(recipe: Pretrain, device: torch.device) -> None:
    """Raises `LabError` where this machine has not what the recipe computes with."""
    check_attention(recipe.attention, device)
    if recipe.precision == "fp8":
        check_float8(device)


def prepare_model(recipe: Pretrain, world: World, links: Links | None = None) -> Laid:
    """The model of the recipe, laid out, on its device, in training mode; its weights are not in it yet."""
    empty = skeleton(recipe.model)
    place = Place.of(0, recipe.parallelism)
    attend(empty, recipe.attention, recipe.document_mask and not recipe.compile and not place.sliced)
    if recipe.precision == "fp8":
        convert(empty)
    laid = distribute(
        empty,
        recipe.parallelism,
        recipe.precision != "fp32",
        world.device,
        links,
        recipe.reduce_dtype == "bf16",
    )
    initialise_derived(laid.model, recipe.model)
    for stage in {laid.model, *laid.stages}:
        stage.train()
        apply_recompute(stage, recipe.recompute)
    if recipe.compile:
        compile_layers(laid.model, BUDGET if recipe.recompute == "budget" else 1.0)
    return laid


def begin(recipe: Pretrain, model: Any) -> None:
    """Give the laid-out model its initial weights."""
    initialise(model, recipe.model, recipe.seed)
    if recipe.mup:
        scale_initial(model, recipe.model, recipe.mup)


def rates(recipe: Pretrain, model: torch.nn.Module) -> dict[str, float] | None:
    """Factors of the learning rate by parameter name, where the recipe scales it."""
    if recipe.mup is None:
        return None
    return {name: scale.rate for name, scale in scales(model, recipe.model, recipe.mup).items()}


def shifts(mixture: Mixture | Curriculum, seq_len: int) -> tuple[int, ...]:
    """The training sequences at which another phase of a curriculum begins."""
    return tuple(start // seq_len for start in mixture.starts[1:-1]) if isinstance(mixture, Curriculum) else ()


def restart(
    recipe: Pretrain, start: Start | None, model: Any, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints
) -> None:
    """Put the weights to what they begin with, and the optimiser's state."""
    optimizer.state.clear()
    checkpoints.before = 0 if start is None else start.updates
    if start is None:
        begin(recipe, model)
    else:
        start.fill(model, optimizer, recipe.model)


def pipeline(recipe: Pretrain, laid: Laid, links: Links, world: World, autocast: bool) -> Pipeline | None:
    """What drives the stages where the layout has several."""
    if links.pp is None:
        return None
    dtype = torch.bfloat16 if recipe.precision != "fp32" and not autocast else torch.float32
    loss = recipe.cross_entropy, recipe.z_loss
    return Pipeline(laid.stages, recipe.parallelism, links.pp, world.device, recipe.model.hidden, dtype, *loss)


def routing(recipe: Pretrain, model: Any, world: World, place: Place, links: Links) -> Routing | None:
    """The routers of a model with experts."""
    if recipe.model.moe is None:
        return None
    return Routing(model, recipe.model, world, place, links, recipe.balance, recipe.steps)


def heldout(recipe: Pretrain, source: Source, lengths: torch.Tensor) -> Heldout:
    """The held-out split in its natural proportions, at most `eval_tokens` of it, and of each domain, where it has so many,
    half of what it would have if all were read alike."""
    data = PackedDataset(source.data, Mixture(), recipe.seq_len, "heldout", recipe.seed)
    count = max(1, min(recipe.eval_tokens, data.tokens_available) // recipe.seq_len)
    least = max(1, count // (2 * len(data.domains)))
    sides = recipe.sides if isinstance(recipe, Midtrain) else {}
    return Heldout(data, count, recipe.parallelism.micro_batch_size, recipe.document_mask, lengths, least, sides)


def meter(recipe: Pretrain, run: Recorder, world: World) -> Meter:
    """Speed, and MFU where the cluster that the run is priced on has a published peak for the precision."""
    cluster = Run.open(run.path).cluster
    peak = cluster.accelerator.peak(recipe.precision) if cluster else None
    flops = training_flops(job(recipe), recipe.step_tokens).total
    ideal = CHINCHILLA * count(recipe.model).total
    return Meter(recipe.step_tokens, world.device, flops, None if peak is None else peak * world.size, ideal)
