import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Mid-training")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Train a model further

    **The question:** the base model is trained. What is the best use of the last part of the budget: better text, a new
    domain, longer sequences, or nothing at all but an average of what there is?
    """)
    return


@app.cell
def _():
    import os

    import marimo as mo

    from cluster import submit
    from lablib import Cluster, Evaluate, Merge, Mixture, Prepare
    from lablib.explorers import MidtrainPlan, MiniPlan
    from lablib.explorers.monitor import kept_and_learned, sides
    from lablib.plan import calibrate, reading
    from lablib.report import export, verify
    from lablib.specs import Needle
    from lablib.specs.paths import home
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return (
        Cluster,
        Evaluate,
        Merge,
        MidtrainPlan,
        MiniPlan,
        Mixture,
        Needle,
        Prepare,
        calibrate,
        explore,
        export,
        home,
        kept_and_learned,
        mo,
        reading,
        show,
        sides,
        submit,
        tiny,
        verify,
        watch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. A base model, and its stable phase

    It reads code and reference pages, never a book and never a conversation. Its schedule is WSD: the rate rises, stays, and
    falls over the last third. Ten checkpoints are kept for good, so that one can go back to before that fall.
    """)
    return


@app.cell
def _(Cluster, MiniPlan, Mixture, Prepare, calibrate, home, submit, tiny):
    machine = Cluster.load("local") if (home() / "local-cluster.json").is_file() else calibrate(price="$0.10")
    data = submit(Prepare(name="data", corpus="core", max_bytes="2 MB" if tiny else "24 MB", heldout=0.05))
    plan = MiniPlan(
        cluster=machine,
        data=data.data,
        tokens=20_480 if tiny else 1_000_000,
        layers=2 if tiny else 4,
        batch_tokens=1024 if tiny else 4096,
    ).recipe
    old, every = Mixture(weights={"code": 0.7, "reference": 0.3}), plan.steps // 10
    base = submit(
        plan.replace(
            name="base",
            mixture=old,
            checkpoint_every=every,
            permanent_every=every,
            eval_tokens=4096 if tiny else 16_384,
        ),
        after=data,
    )
    return base, data, every, machine


@app.cell
def _(base, data, show, watch):
    show(watch([data, base]))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What you should see:** the loss falls, lies nearly flat while the rate stays, and falls once more with the rate. Held-out
    loss by domain: `books` and `dialogue`, which it never reads, stay high.

    ## 2. The plan

    The same share of all tokens, spent three ways. **What you should see:** annealing goes on at the full rate and takes it
    to nothing; the other two learn at a tenth of it, because they begin where the rate has fallen already. More replay
    leaves less for the new domain. Length costs memory and speed even where the number of tokens stays.
    """)
    return


@app.cell
def _(MidtrainPlan, Mixture, base, every, explore, machine, show):
    better, talk = Mixture(weights={"books": 0.3, "code": 0.4, "reference": 0.3}), Mixture(weights={"dialogue": 1.0})
    board = explore(MidtrainPlan.of(base, machine, better=better, domain=talk, from_step=7 * every, share=0.3))
    show(board)
    return (board,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. All of them, and an average

    Each is a recipe and waits for the base. Annealing begins at a checkpoint of the stable phase, with the optimiser's
    state, and takes as many tokens as the base's own fall of the rate did: the two differ in their text alone. The new
    domain runs with replay and without. `Merge` averages three checkpoints of the stable phase and trains nothing.
    """)
    return


@app.cell
def _(Merge, base, board, every, show, submit, watch):
    uses = {kind: board.explorer.of_kind(kind).replace(name=kind) for kind in ("anneal", "continue", "extend")}
    uses["lost"] = board.explorer.replace(replay=0.0).of_kind("continue").replace(name="without-replay")
    uses["merged"] = Merge(name="merged", average="ema", models=(base.model,), steps=(5 * every, 6 * every, 7 * every))
    annealed, kept, longer, lost, merged = (submit(recipe, after=base) for recipe in uses.values())
    show(watch([annealed, kept, lost, longer, merged]))
    return annealed, kept, longer, lost, merged


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What you should see:** held-out loss is measured before the first step, so each screen begins where its model came from.
    `books` falls while annealing. Below, loss on the new mixture and the old one, before and after: without replay the
    old one rises, with it less; at a tenth of the rate neither forgets much. Tokens are read as planned, to within a window.
    """)
    return


@app.cell
def _(kept, kept_and_learned, lost, reading, sides):
    told = {run.recipe.name: (run.wait(), *kept_and_learned(sides(run.rows("eval")))) for run in (kept, lost)}
    read = {
        one.domain: (round(one.tokens), kept.rows()[-1][f"tokens.{one.domain}"])
        for one in reading.readings(kept.recipe)
    }
    {**told, "tokens planned and read": read}
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. Which was best

    All models on the same held-out text of every domain, and a needle: a number hidden in a text as long as the base ever
    read, and in one four times as long. Each is compared with the base item by item.
    """)
    return


@app.cell
def _(Evaluate, Needle, annealed, base, data, kept, longer, lost, merged, show, submit, tiny, watch):
    runs = [base, merged, annealed, kept, lost, longer]
    needle = Needle(lengths=(256, 1024), depths=(0.5,), repeats=2 if tiny else 16, max_new_tokens=8)
    compared = submit(
        Evaluate(
            name="compared",
            models={run.recipe.name: run.model for run in runs},
            data=data.data,
            eval_tokens=8192 if tiny else 65_536,
            needle=needle,
        ),
        after=runs,
    )
    show(watch(compared))
    return compared, runs


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What you should see:** bits per byte over all domains. Annealed and continued models gain, because they read text that the
    base never saw; the merged one lies near the base's end without its fall of the rate, for no training at all. The needle
    is found by none: a model this small copies no number, and 0 % before and after says nothing of length. What does is
    the loss of `extend` at its first look and its last, at four times the length. From a billion parameters on, read the needle.
    """)
    return


@app.cell
def _(compared, data, export, runs, verify):
    state = compared.wait()
    report = export(
        [data, *runs, compared], question="What is the best use of the last part of the budget?", title="Mid-training"
    )
    f"{state}: {report} ({report.stat().st_size / 1e6:.1f} MB), hash {verify(report)[:16]}"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    The fall of the rate is where a model learns most a token, so the best text belongs there: anneal from the stable phase,
    and keep its checkpoints. A new domain costs the old one unless some of it is replayed. Length is bought last, on few
    tokens. A merge is free, and tells what a fall of the rate would bring. Which counts most depends on what the model is
    for: look at the domain that you need, not at the mean.
    """)
    return


if __name__ == "__main__":
    app.run()
