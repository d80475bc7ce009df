import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Start")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Start: from a recipe to a run

    A language model is made in stages: **data → pretraining → SFT → preference → GRPO → evaluation**. In this lab
    each stage is a *recipe* (what to do), an *estimate* (what it will take) and a *run* (a folder with all that
    happened). Nothing trains inside the notebook: a submitted run is a process of its own, and goes on when the
    notebook is closed.

    **The question of this notebook:** what can this machine do, and how far is the lab's prediction from what happens?
    """)
    return


@app.cell
def _():
    import os

    import marimo as mo

    from cluster import submit
    from lablib import Cluster, Prepare, estimate
    from lablib.explorers import MiniPlan
    from lablib.plan import calibrate
    from lablib.specs.paths import home
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return Cluster, MiniPlan, Prepare, calibrate, estimate, explore, home, mo, show, submit, tiny, watch


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. Measure the machine

    A plan is only as honest as its constants. The first time, the lab times matrix products, memory and some real
    training steps (about half a minute) and remembers them.
    """)
    return


@app.cell
def _(Cluster, calibrate, home):
    measured = (home() / "local-cluster.json").is_file()
    machine = Cluster.load("local") if measured else calibrate(price="$0.10")
    machine
    return (machine,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. Play with a plan

    Move the knobs: everything below them is computed again, in a few milliseconds. The grey band is the loss curve that
    the lab expects.

    **What you should see:** twice the width costs about three to four times the time; ten times the tokens cost ten
    times the time and buy less and less loss.
    """)
    return


@app.cell
def _(MiniPlan, explore, machine):
    board = explore(MiniPlan(cluster=machine))
    return (board,)


@app.cell
def _(board, show):
    show(board)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. Submit a first run

    Every model begins with data. This recipe takes real text with known licences, trains a tokenizer on it and writes
    token shards. `submit` returns at once; the folder that it prints is all that anybody needs to come back later.
    """)
    return


@app.cell
def _(Prepare, estimate, machine, submit, tiny):
    recipe = Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if tiny else "24 MB")
    plan = estimate(recipe, machine)
    run = submit(recipe)
    run
    return plan, run


@app.cell
def _(run, show, watch):
    show(watch(run))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. What happened

    **What you should see:** the state turns to *completed*, and the time lies inside the planned range, or below it
    where an earlier run left the same data in the cache.
    """)
    return


@app.cell
def _(plan, run):
    state = run.wait()
    days = plan.days
    f"{state}: {run.outcome.seconds:.1f} s, planned {days.low * 86400:.0f} to {days.high * 86400:.0f} s; made {', '.join(run.artefacts)}"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    You have measured a machine, priced a recipe, run it and compared the two. `01_plan_budget` does the same for a
    cluster and a budget; `06_pretrain` trains a model on the data that you have just made.
    """)
    return


if __name__ == "__main__":
    app.run()
