import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Text that stays")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Text that stays

    **The question:** which documents of a corpus should a model read, and can each decision be defended: what went, why,
    and under which licence the rest is?
    """)
    return


@app.cell
def _():
    import os
    from pathlib import Path

    import marimo as mo

    import lablib
    from cluster import submit
    from lablib import Prepare, Run
    from lablib.explorers import DataFlow, DataSamples, FunnelPlan, SCurve
    from lablib.specs import Clean, Decontaminate, Dedup, Repeats, Scrub
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return (
        Clean,
        DataFlow,
        DataSamples,
        Decontaminate,
        Dedup,
        FunnelPlan,
        Path,
        Prepare,
        Repeats,
        Run,
        SCurve,
        Scrub,
        explore,
        lablib,
        mo,
        show,
        submit,
        tiny,
        watch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. Signals first, thresholds later

    Every document is measured once: its words, lines, repetitions, language, personal data. A threshold is asked of the
    measurements, so that moving it reads no text. These are 150 real documents that come with the lab.

    **What you should see:** "By splitter" in the headlines. What counts as a word decides more than any threshold: the
    same rules keep most documents or few. Code and API pages break rules that were made for web text; an e-mail archive
    would break others. The grey bars are a published funnel, which began with raw web pages.
    """)
    return


@app.cell
def _(FunnelPlan, explore, show):
    rules = explore(FunnelPlan(preset="gopher"))
    show(rules)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. What near-duplicate removal can find

    MinHash proposes pairs, and their exact similarity decides, so nothing goes that should stay; but a pair that is not
    proposed is not found. The curve says which.

    **What you should see:** at a threshold of 0.7 a copy with two words in a hundred changed is gone nearly always, one
    with three mostly, one with five seldom, and one with ten never: a changed word spoils five shingles. Shorter shingles and a lower threshold find more, and compare more for nothing.
    """)
    return


@app.cell
def _(SCurve, explore, show):
    curve = explore(SCurve(rate=5))
    show(curve)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. A run

    The steps in their order: quality rules, near-duplicates, lines that many documents share, test items of benchmarks,
    personal data. Each is kept, so that another threshold repeats only what comes after it.
    """)
    return


@app.cell
def _(Clean, Decontaminate, Dedup, Path, Prepare, Repeats, Scrub, lablib, submit, tiny):
    corpus = str(Path(lablib.__file__).parent) if tiny else "core"
    steps = {"clean": Clean(min_words=30), "dedup": Dedup(), "repeats": Repeats(), "decontaminate": Decontaminate()}
    data = submit(Prepare(name="data", corpus=corpus, vocab=4096, max_bytes="24 MB", scrub=Scrub(), **steps))
    data
    return (data,)


@app.cell
def _(data, show, watch):
    show(watch(data))
    return


@app.cell
def _(data):
    state, run = data.wait(), str(data.path)
    f"{state}: {run}"
    return (run,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. What the funnel left

    Documents, bytes and tokens through each step, the licences of what stayed, and which benchmarks were searched for.

    **What you should see:** a clean corpus loses little: most published losses are of web pages. A benchmark whose items
    are not on this machine is called missing, and no score on it will be called clean.
    """)
    return


@app.cell
def _(DataFlow, explore, run, show):
    left = explore(DataFlow(run=run))
    show(left)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 5. Other thresholds, the same measurements

    The run has measured every document that it read. Move a threshold: the table shows whom it drops.
    """)
    return


@app.cell
def _(FunnelPlan, Run, explore, run, show):
    moved = explore(FunnelPlan.of(Run.open(run)))
    show(moved)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 6. Look at what went

    Counts hide mistakes; reading does not. Choose a step, and "changed" for texts before and after an edit, or "test
    items" for what decontamination found, in its context.

    **What you should see:** near-duplicates are forms, generated pages and licences. Some of what the rules drop looks
    fine to you: that is the price of a rule, and a reason to move it.
    """)
    return


@app.cell
def _(DataSamples, explore, run, show):
    samples = explore(DataSamples(run=run))
    show(samples)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    A corpus can be defended when every document that went has a reason that somebody has read, when every one that
    stayed has a source and a licence, and when it is known which benchmarks it was searched for. `lab data card` prints
    that page; the report holds it beside the scores.
    """)
    return


if __name__ == "__main__":
    app.run()
