import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Mix the data")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Mix the data

    **The question:** how much of each source should a model read, when, and does the answer beat doing nothing clever?
    """)
    return


@app.cell
def _():
    import os

    import marimo as mo

    from cluster import learn_mixture, submit
    from lablib import Mixture, Prepare, Run
    from lablib.data.mixing import anneal, natural
    from lablib.explorers import MiniPlan, MixturePlan
    from lablib.plan import reading
    from lablib.specs import Accelerator, Cluster
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return (
        Accelerator,
        Cluster,
        MiniPlan,
        Mixture,
        MixturePlan,
        Prepare,
        Run,
        anneal,
        explore,
        learn_mixture,
        mo,
        natural,
        reading,
        show,
        submit,
        tiny,
        watch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. What others did

    Published mixtures and curricula, over any number of tokens. Passes beyond the first are worth less than new data
    (arXiv 2305.16264); the tick on each bar says how much less.

    **What you should see:** Olmo 3 reads mathematics four and a half times and most of the web not even once. Move the
    tokens up and more bars turn orange; "move weights" keeps every domain under the cap. SmolLM3's shares change twice:
    code and mathematics come late, when the learning rate falls.
    """)
    return


@app.cell
def _(MixturePlan, explore, show):
    published = explore(MixturePlan(preset="olmo3"))
    show(published)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. What we have

    **What you should see:** five domains. `guides` is tiny: at equal shares it would be read dozens of times. The card
    names each domain's licences as its sources state them, and says that nothing was decontaminated.
    """)
    return


@app.cell
def _(Prepare, show, submit, tiny, watch):
    data = submit(Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if tiny else "24 MB"))
    show(watch([data]))
    return (data,)


@app.cell
def _(Accelerator, Cluster, MiniPlan, MixturePlan, data, explore, show, tiny):
    data.wait()
    machine = Cluster(
        accelerator=Accelerator(
            name="a core", kind="cpu", memory_gib=4, bandwidth_gb_s=10, measured_tflops={"fp32": 0.05}
        ),
        gpus_per_node=1,
    )
    small = MiniPlan(cluster=machine, data=data.data, tokens=20_480 if tiny else 1_000_000).recipe
    own = MixturePlan.of(data, base=small, tokens=small.tokens)
    show(explore(own))
    return own, small


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. A curriculum, trained

    Natural shares first; then, for the last fifth, in which the learning rate falls, mostly dialogue. The loader changes
    the mixture at the very window, and a run that is stopped there goes on exactly.

    **What you should see:** the tokens that were read of each domain are those of the plan, to within a window or two.
    """)
    return


@app.cell
def _(Mixture, anneal, natural, own, show, small, submit, watch):
    usual = Mixture(weights=natural(own.available))
    plan = anneal(usual, Mixture(weights={"dialogue": 0.7, "books": 0.3}), small.tokens, 0.2)
    run = submit(small.replace(mixture=plan, name="annealed"))
    show(watch(run))
    return (run,)


@app.cell
def _(Run, reading, run):
    run.wait()
    read = Run.open(run.path).rows()[-1]
    planned = {one.domain: (round(one.tokens), read[f"tokens.{one.domain}"]) for one in reading.readings(run.recipe)}
    f"{run.state}. Tokens planned and read: {planned}"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. A mixture learned from proxies

    `learn_mixture` (in a terminal: `lab mixture learn`) trains many small runs on different mixtures, fits a law to each
    domain's held-out loss, and trains the best mixture, the uniform and the natural one with fresh seeds. It takes some
    minutes here, so the tiny form of this notebook leaves it out. On a cluster the proxies are one array.

    **What you should see:** a predicted gain, and verdicts with their intervals. With runs this small the verdict is often
    "was not shown to differ": the law is only as good as its proxies are long.
    """)
    return


@app.cell
def _(learn_mixture, small, tiny):
    study = None if tiny else learn_mixture(small.replace(name="proxy", tokens=200_000), 24)
    "left out" if study is None else [str(verdict) for verdict in study.verdicts]
    return (study,)


@app.cell
def _(explore, own, show, study):
    effect = explore(own.replace(law=None if study is None else study.law, rule="temperature"))
    show(effect)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    **What you should see:** shares, passes and costs before anything runs, the same shares in what was read, and a claim
    about the better mixture only with an interval around it. A recipe of this screen (`own.recipe`) is what would be
    submitted; DoReMi (`lablib.DoReMi`) is another way to weights, and `Pretrain(mixture=run.ref("mixture"))` takes them.
    """)
    return


if __name__ == "__main__":
    app.run()
