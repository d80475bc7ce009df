import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Plan a budget")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Plan a budget

    **The question:** what does it take to pretrain a model of a given size on a given number of tokens, and can the
    answer be trusted?
    """)
    return


@app.cell
def _():
    import os

    import marimo as mo

    from cluster import submit
    from lablib import Cluster, Prepare, estimate
    from lablib.explorers import Accuracy, BudgetPlan, LayoutPlan, MemoryPlan, MiniPlan
    from lablib.plan import calibrate
    from lablib.specs.paths import home
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return (
        Accuracy,
        BudgetPlan,
        Cluster,
        LayoutPlan,
        MemoryPlan,
        MiniPlan,
        Prepare,
        calibrate,
        estimate,
        explore,
        home,
        mo,
        show,
        submit,
        tiny,
        watch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. The planner

    Every number is arithmetic on the model's shape, the layout and the accelerator's data sheet; "How each number came
    about" at the bottom gives the formula and the source of each.

    **What you should see:** at 256 H100 an 8B model on 1T tokens takes days and tens of thousands of dollars. Doubling
    the accelerators halves the days and leaves the bill nearly as it is, until communication shows. A longer sequence or
    more sequences at a time fill the memory: the dashed line is where it ends. The last two charts draw published laws of
    learning rate and batch through the recipe: they differ by factors of two to five, and dotted parts are extrapolations.
    """)
    return


@app.cell
def _(BudgetPlan, explore):
    budget = explore(BudgetPlan(model="llama-3.1-8b", tokens=1_000_000_000_000, gpus=256))
    return (budget,)


@app.cell
def _(budget, show):
    show(budget)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The screen's state is a recipe: this is what would be submitted to a cluster (run the cell again after moving a
    knob).
    """)
    return


@app.cell
def _(budget):
    budget.recipe
    return


@app.cell
def _(budget, estimate):
    estimate(budget.recipe, budget.explorer.cluster)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. Will it fit?

    Memory has a place and a moment: the first pipeline stage holds most activations, the last one the logits, and the
    peak may come at the loss, in the backward pass or in the optimiser's step. The table "What if" flips one switch at a
    time.

    **What you should see:** recomputing every layer saves most and costs about a quarter more time; a chunked cross
    entropy saves ten GiB for nothing, because a vocabulary of 128k makes the logits of 8,192 tokens that large. Set the
    longest sequence that can come, not the mean: late out-of-memory errors come from the longest sample.
    """)
    return


@app.cell
def _(MemoryPlan, explore, show):
    memory = explore(MemoryPlan(model="llama-3.1-8b", dp_shard=8))
    show(memory)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. Which layout?

    Replicas, shards, tensor, pipeline, context and expert parallelism, micro-batch and recomputation make thousands of
    layouts; all of them are priced at once.

    **What you should see:** the fastest layouts leave little memory free, and the grey crosses are faster still but do
    not fit. The note holds the guide's rule of thumb against the search. Take nodes away until the crosses win.
    """)
    return


@app.cell
def _(LayoutPlan, explore, show):
    layouts = explore(LayoutPlan(model="llama-3.1-70b", nodes=8))
    show(layouts)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. How right is it?

    The same formulas were held against published measurements of other people's runs. Each point is one of them.

    **What you should see:** memory within a few per cent for frameworks whose conventions are known, and far off where a
    source does not say its sequence length (axolotl). Whole runs scatter most: restarts and failures are not in any
    layout. `docs/planner.md` has the errors by source.
    """)
    return


@app.cell
def _(Accuracy, explore, show):
    accuracy = explore(Accuracy(field="memory"))
    show(accuracy)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 5. Hold it against something real

    A planner that is never checked is a guess. The same `estimate` plans a small pretraining on this machine; we run it
    and compare.
    """)
    return


@app.cell
def _(Cluster, MiniPlan, Prepare, calibrate, home, submit, tiny):
    measured = (home() / "local-cluster.json").is_file()
    machine = Cluster.load("local") if measured else calibrate(price="$0.10")
    data = submit(Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if tiny else "24 MB"))
    small = MiniPlan(cluster=machine, data=data.data, tokens=20_480 if tiny else 1_000_000)
    run = submit(small.recipe)
    run
    return data, machine, run, small


@app.cell
def _(data, run, show, watch):
    show(watch([data, run]))
    return


@app.cell
def _(estimate, machine, run, small):
    run.wait()
    plan, outcome = estimate(small.recipe, machine), run.outcome
    planned = f"{plan.days.mid * 86400:.0f} s and {plan.memory.peak_gib:.2f} GiB"
    f"{run.state}. Planned {planned}; took {outcome.seconds:.0f} s and {outcome.peak_gib:.2f} GiB"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    **What you should see:** time within the planned range on a quiet machine (a busy one is slower, never faster), and
    memory within some tens of per cent. The table of the report (`lab report`) keeps both, so that the next plan can be
    better than this one.
    """)
    return


if __name__ == "__main__":
    app.run()
