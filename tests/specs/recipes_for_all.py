"""Any valid recipe of any stage, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from lablib.specs import (
    GRPO,
    PPO,
    SFT,
    Calibrate,
    Caps,
    DoReMi,
    Evaluate,
    Export,
    LoRA,
    Merge,
    Midtrain,
    Mixture,
    ModelSpec,
    Optimizer,
    Parallelism,
    Preference,
    Prepare,
    Pretrain,
    Recipe,
    Ref,
    Reward,
    Schedule,
    Synthesize,
    Task,
)
from lablib.specs.midtrain import Replay
from lablib.specs.mixtures import Curriculum

slugs = st.from_regex(r"[a-z0-9]([a-z0-9_-]|\.(?!\.)){0,12}", fullmatch=True).filter(lambda text: ".." not in text)
refs = st.builds(Ref, run=slugs, artefact=slugs, science=st.text("0123456789abcdef", min_size=16, max_size=16))
texts = st.sampled_from(["smollm2-135m-instruct", "a/folder", "qwen3-0.6b", "Größe", 'quote " and \\ slash'])
tasks = st.builds(
    Task,
    name=slugs,
    generator=st.just("chain_sum"),
    params=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9) | st.booleans() | st.text(max_size=4)),
    fewshot=st.integers(0, 3),
)
layouts = st.builds(
    Parallelism,
    dp_replicate=st.integers(1, 3),
    dp_shard=st.integers(1, 4),
    pp=st.integers(1, 2),
    cp=st.integers(1, 2),
    micro_batch_size=st.integers(1, 4),
)
mixtures = st.sampled_from([Mixture(), Mixture(weights={"code": 0.25, "books": 0.75}), Mixture(max_epochs=2.5)])
curricula = st.just(
    Curriculum.of(("8M", Mixture(weights={"books": 1.0})), (5, Mixture(weights={"code": 0.5, "books": 0.5})))
)
model = ModelSpec(layers=2, hidden=64, heads=4, ffn=128, vocab=512)


@st.composite
def pretrains(draw: st.DrawFn) -> Pretrain:
    """A Pretrain recipe whose batch is whole under its layout."""
    layout = draw(layouts)
    seq_len = draw(st.sampled_from([64, 256]))
    batch = seq_len * layout.micro_batch_size * layout.dp * draw(st.integers(1, 3))
    return Pretrain(
        name=draw(slugs),
        seed=draw(st.integers(0, 9)),
        model=model,
        data=draw(refs | texts),
        mixture=draw(mixtures | curricula | refs),
        tokens=draw(st.integers(1, 10**13)),
        seq_len=seq_len,
        batch_tokens=batch,
        optimizer=draw(st.builds(Optimizer, learning_rate=st.floats(1e-6, 1))),
        schedule=draw(
            st.builds(
                Schedule, kind=st.sampled_from(["wsd", "cosine"]), warmup=st.floats(0, 0.5), decay=st.floats(0, 0.5)
            )
        ),
        parallelism=layout,
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
        precision=draw(st.sampled_from(["fp32", "bf16", "fp8"])),
        compile=draw(st.booleans()),
        checkpoint_every=draw(st.none() | st.integers(1, 99)),
    )


@st.composite
def proxies(draw: st.DrawFn) -> Pretrain:
    """A Pretrain recipe of one process that takes its step at once, on another run's data."""
    drawn = draw(pretrains())
    layout = Parallelism(micro_batch_size=drawn.step_tokens // drawn.seq_len)
    return drawn.replace(data=draw(refs), parallelism=layout)


@st.composite
def midtrains(draw: st.DrawFn) -> Midtrain:
    """A Midtrain recipe of each kind, with and without replay and a checkpoint."""
    drawn = draw(pretrains())
    fields = {name: getattr(drawn, name) for name in type(drawn).model_fields if name not in ("stage", "mixture")}
    return Midtrain(
        **fields,
        kind=draw(st.sampled_from(["anneal", "continue", "extend"])),
        start=draw(refs),
        from_step=draw(st.none() | st.integers(1, 9)),
        mixture=Mixture(weights={"new": 1.0}),
        replay=draw(st.none() | st.builds(Replay, mixture=st.just(Mixture(weights={"old": 1.0})), share=st.floats(0, 0.9))),
    )  # fmt: skip


adapters = st.none() | st.builds(
    LoRA, rank=st.integers(1, 64), targets=st.sampled_from(["all-linear", ("q_proj", "v_proj")])
)
WHOLE = 864
"""A multiple of every layout's data-parallel ranks × micro-batch."""
post = {
    "model": refs | texts,
    "lora": adapters,
    "steps": st.integers(1, 9),
    "learning_rate": st.floats(1e-8, 1),
    "parallelism": layouts,
    "batch_size": st.just(WHOLE),
}
recipes: st.SearchStrategy[Recipe] = st.one_of(
    st.builds(DoReMi, proxy=proxies(), reference=refs, rate=st.floats(0.1, 9)),
    st.builds(
        Prepare,
        corpus=texts | refs | st.tuples(texts, refs),
        synthetic=st.none() | st.builds(Caps, depth=st.integers(0, 3)),
        mixture=mixtures,
        max_bytes=st.none() | st.integers(1, 10**12),
        heldout=st.floats(0.001, 0.49),
    ),
    pretrains(),
    st.builds(SFT, data=tasks | texts, **post),
    st.builds(
        Preference,
        data=tasks | texts,
        beta=st.floats(0.01, 1),
        loss=st.sampled_from(["sigmoid", "ipo", "hinge"]),
        **post,
    ),
    st.builds(Reward, data=tasks | texts, **post),
    st.builds(PPO, task=tasks, reward=refs | texts, passes=st.integers(1, 4), **post),
    st.builds(
        GRPO, task=tasks, beta=st.floats(0, 1), group_size=st.integers(2, 9), prompts_per_step=st.just(WHOLE), **post
    ),
    st.builds(
        Evaluate,
        models=st.dictionaries(slugs, refs | texts, min_size=1, max_size=3),
        tasks=st.tuples(tasks),
        data=st.none() | refs,
    ),
    st.builds(
        Synthesize,
        model=refs | texts,
        data=refs | tasks | texts,
        count=st.integers(1, 512),
        attempts=st.integers(1, 4),
        temperature=st.floats(0.1, 2),
        trained_on=st.none() | st.integers(0, 3),
    ),
    st.builds(Calibrate, seed=st.integers(0, 3)),
    midtrains(),
    st.builds(
        Merge,
        models=st.tuples(refs, refs | texts),
        average=st.sampled_from(["uniform", "ema"]),
        decay=st.floats(0, 0.99),
    ),
    st.builds(Merge, models=st.tuples(refs), steps=st.just((10, 20))),
    st.builds(Export, model=refs | texts, dtype=st.sampled_from(["fp32", "bf16"])),
)
