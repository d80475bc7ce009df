import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Pretrain")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Pretrain a language model

    **The question:** does a small model, trained from nothing on real text, follow the loss curve that was forecast
    before it began?
    """)
    return


@app.cell
def _():
    import os

    import marimo as mo

    from cluster import submit
    from lablib import Cluster, Prepare
    from lablib.explorers import MiniPlan
    from lablib.plan import calibrate
    from lablib.report import export, verify
    from lablib.specs.paths import home
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return Cluster, MiniPlan, Prepare, calibrate, explore, export, home, mo, show, submit, tiny, verify, watch


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. Data

    Real text from pinned packages, a byte-level tokenizer of 4,096 tokens, shards with a hash each. Where an earlier
    run made the same, it is taken from the cache.
    """)
    return


@app.cell
def _(Cluster, Prepare, calibrate, home, submit, tiny):
    measured = (home() / "local-cluster.json").is_file()
    machine = Cluster.load("local") if measured else calibrate(price="$0.10")
    data = submit(Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if tiny else "24 MB"))
    data
    return data, machine


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. The plan

    Choose a size and a number of tokens. The band is the forecast; it is written into the run's folder when the recipe
    is submitted, and cannot be moved afterwards.
    """)
    return


@app.cell
def _(MiniPlan, data, explore, machine, tiny):
    board = explore(MiniPlan(cluster=machine, data=data.data, tokens=20_480 if tiny else 1_000_000))
    return (board,)


@app.cell
def _(board, show):
    show(board)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. The run

    The recipe refers to the data run's result, so the job waits for it. Go on reading, close the lid, restart the
    kernel: the run does not notice, and `watch(Run.open(...))` shows it again from its first step.
    """)
    return


@app.cell
def _(board, submit):
    run = submit(board.recipe)
    run
    return (run,)


@app.cell
def _(data, run, show, watch):
    show(watch([data, run]))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What you should see:** the loss begins near ln 4096 = 8.3, which is what guessing costs, falls quickly while the
    model learns which tokens are frequent, then slowly. In the last third the learning rate decays and the loss falls
    once more. Orange diamonds are text that the model never trained on: they stay close to the line, because there is
    more text than the model sees.
    """)
    return


@app.cell
def _(run):
    state = run.wait()
    f"{state}: loss {run.outcome.loss:.2f} after {run.rows()[-1]['tokens']:,} tokens in {run.outcome.seconds:.0f} s"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. Which learning rate?

    Under μP the best rate of a narrow model is that of a wide one, so it can be searched where it is cheap. `proxies` are
    the recipes of such a search and `cost` is what they take beside their target, here a model of eight billion parameters;
    `cluster.tune` (in a terminal: `lab mup target.toml --widths 256,512`) runs them, on Slurm as one array, and gives each
    width's best rate with its interval.

    **What you should see:** fourteen runs, seven rates at each of two widths, for a fraction of a percent of the
    target. Without them a wrong rate is found out on the target itself.
    """)
    return


@app.cell
def _(Cluster):
    from lablib import Parallelism, Pretrain, catalog
    from lablib.plan.tuning import cost, proxies

    large = catalog.models["llama-3-8b"]
    target = Pretrain(
        model=large,
        tokens="1T",
        seq_len=4096,
        batch_tokens="4M",
        parallelism=Parallelism(dp_shard=128),
        recompute="selective",
    )
    str(cost(proxies(target, (256, 512)), target, Cluster(accelerator="h100-sxm", nodes=16)))
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 5. The report

    One file that opens without a network: plan and outcome, curves, the data's licences, provenance, and the recipes
    themselves. `lab reproduce` runs it again and compares.
    """)
    return


@app.cell
def _(data, export, run, verify):
    question = "Does a small model follow the loss curve that was forecast before it began?"
    report = export([data, run], question=question, title="Pretraining a small model")
    f"{report} ({report.stat().st_size / 1e6:.1f} MB), hash {verify(report)[:16]}"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    Compare the last point with the band: inside means that the forecast held. At this size the law is borrowed from
    much larger runs, so the band is wide, and the report says so.
    """)
    return


if __name__ == "__main__":
    app.run()
