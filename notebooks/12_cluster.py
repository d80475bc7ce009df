import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Cluster")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # From this cell to a cluster and back

    **The question:** does a run that is killed in the middle end up where an undisturbed one does, without anybody
    looking after it?

    On this machine by default. Where a development Slurm is up (`make slurm-up`), the same cells use four nodes.
    """)
    return


@app.cell
def _():
    import os
    import signal
    import time

    import marimo as mo

    from cluster import Profile, jobs, submit, submit_all, tail
    from lablib import Parallelism, Prepare, Pretrain
    from lablib.explorers import LayoutPlan
    from lablib.specs import ModelSpec, variants
    from widgets import explore, show, watch

    return (
        LayoutPlan,
        ModelSpec,
        Parallelism,
        Prepare,
        Pretrain,
        Profile,
        explore,
        jobs,
        mo,
        os,
        show,
        signal,
        submit,
        submit_all,
        tail,
        time,
        variants,
        watch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. Where

    A profile says where recipes run and on what terms; the planner prices on the same one. `lab cluster probe` drafts yours.
    """)
    return


@app.cell
def _(Profile, os):
    profile = Profile.load("slurm-dev" if os.environ.get("SLURM_CONF") else "local")
    profile
    return (profile,)


@app.cell
def _(LayoutPlan, explore, show):
    layouts = explore(LayoutPlan(model="llama-3.1-8b", nodes=2))
    show(layouts)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    What is best on two nodes of H100 is above; what we can show here is smaller.

    ## 2. Two runs of one recipe

    The two are an array on Slurm. Both wait for their data. `submit` copies the code, so editing a module now changes
    nothing for them.
    """)
    return


@app.cell
def _(
    ModelSpec,
    Parallelism,
    Prepare,
    Pretrain,
    profile,
    submit,
    submit_all,
    variants,
):
    data = submit(Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB"), profile)
    small = ModelSpec(family="qwen3", layers=2, hidden=64, heads=2, kv_heads=2, ffn=128, vocab=4096)
    layout = Parallelism(dp_shard=2, micro_batch_size=2)
    recipe = Pretrain(model=small, data=data.data, tokens=102_400, seq_len=64, batch_tokens=512, precision="fp32", checkpoint_every=10, log_every=1, parallelism=layout)  # fmt: skip
    calm, struck = submit_all(variants(recipe, {"name": ["calm", "struck"]}), profile)
    return calm, data, struck


@app.cell
def _(calm, data, show, struck, watch):
    show(watch([data, calm, struck]))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. The fault

    As soon as the second run has saved, one of its processes is killed, as the kernel does when memory runs out.
    **What you should see:** its curve pauses, then goes on from the last checkpoint.
    """)
    return


@app.cell
def _(os, signal, struck, time):
    while not any(event["kind"] == "checkpoint" for event in struck.events()):
        time.sleep(0.1)
    os.kill(struck.pulses[1].pid, signal.SIGKILL)
    return


@app.cell
def _(calm, jobs, struck):
    ends = calm.wait(), struck.wait()
    jobs()
    return (ends,)


@app.cell
def _(calm, struck):
    apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(calm.rows(), struck.rows(), strict=True))
    f"losses differ by at most {apart:.1e}; attempts: {[e['reason'] or e['outcome'] for e in struck.events() if e['kind'] == 'attempt']}"
    return


@app.cell
def _(ends, struck, tail):
    ends, tail(struck)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    A fault costs the steps since the last checkpoint and the time to start again, nothing else. `docs/reliability.md`
    lists every fault that was tried on a real Slurm.
    """)
    return


if __name__ == "__main__":
    app.run()
