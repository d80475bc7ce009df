import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Text that models write")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Text that models write

    **The question:** how much text may a model write for the next one, and how is it noticed that it begins to eat its
    own words?

    Models trained generation after generation on their own output lose the rare first, then nearly everything (arXiv
    2305.17493). Real text beside it bounds the harm (arXiv 2404.01413). So every document carries who wrote it, and how
    many models stand between it and people.
    """)
    return


@app.cell
def _():
    import os
    from pathlib import Path

    import marimo as mo

    import lablib
    from cluster import submit
    from lablib import ModelSpec, Prepare, Pretrain
    from lablib.explorers import Synthetic, Written
    from lablib.report import export, verify
    from lablib.specs import Caps, Optimizer, Parallelism, Synthesize
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return (
        Caps,
        ModelSpec,
        Optimizer,
        Parallelism,
        Path,
        Prepare,
        Pretrain,
        Synthesize,
        Synthetic,
        Written,
        explore,
        export,
        lablib,
        mo,
        show,
        submit,
        tiny,
        verify,
        watch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. People's text, and a model that has read it

    Generation 0. The model is tiny: what it writes will be bad, and that is the point.
    """)
    return


@app.cell
def _(ModelSpec, Optimizer, Parallelism, Path, Prepare, Pretrain, lablib, submit, tiny):
    corpus, vocab, tokens = (str(Path(lablib.__file__).parent), 1024, 65_536) if tiny else ("core", 4096, 1_000_000)
    people = submit(Prepare(name="people", corpus=corpus, vocab=vocab))
    shape = {"layers": 2, "hidden": 128, "heads": 2, "kv_heads": 1, "head_dim": 64, "ffn": 384, "max_seq_len": 1024}
    steps = {"seq_len": 256, "batch_tokens": 2048, "optimizer": Optimizer(learning_rate=3e-3), "precision": "fp32"}
    small = ModelSpec(family="qwen3", vocab=vocab, tied_embeddings=True, **shape)
    one = Parallelism(micro_batch_size=8)
    model = submit(Pretrain(name="model", model=small, data=people.data, tokens=tokens, parallelism=one, **steps))
    return corpus, model, people


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. A chain that feeds on itself

    The model goes on from people's beginnings, drawing from its whole distribution: generation 1. Then it goes on from
    its own text, at a low temperature, which takes the likely words and leaves the rest: generation 2.
    """)
    return


@app.cell
def _(Synthesize, model, people, show, submit, tiny, watch):
    size = {"count": 64 if tiny else 1024, "prompt_tokens": 24, "max_new_tokens": 64}
    first = submit(Synthesize(name="generation-1", model=model.model, data=people.data, **size))
    again = {**size, "count": 48 if tiny else 512, "temperature": 0.3}
    second = submit(Synthesize(name="generation-2", model=model.model, data=first.ref("corpus"), **again))
    show(watch([people, model, first, second]))
    return first, second


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What you should see:** how many completions became documents and why others did not, and their diversity beside that
    of the text they were written from. Generation 2 repeats itself and its alarm is on: fewer distinct words than in its
    prompts' text, which is generation 1. Read some of it.
    """)
    return


@app.cell
def _(Written, explore, second, show):
    state = second.wait()
    show(explore(Written.of(second)))
    return (state,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. All of it as one corpus, under caps

    `Prepare` reads what models wrote beside people's text. With `synthetic=Caps(...)` it refuses to make data that holds
    too much of it, or text that is too deep. These caps allow two generations, so that there is something to look at.
    """)
    return


@app.cell
def _(Caps, Prepare, corpus, first, people, second, state, submit):
    texts = (corpus, first.ref("corpus"), second.ref("corpus"))
    mixed = submit(Prepare(name="mixed", corpus=texts, tokenizer=people.tokenizer, synthetic=Caps(depth=2, corpus=0.5)))
    f"generation 2 {state}, the corpus {mixed.wait()}"
    return (mixed,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    **What you should see:** lower "deepest generation" to 1, and generation 2 goes; lower the share, and text of models goes
    until it holds. Nothing is read again. The last chart holds each generation against people's text: generation 2 lies
    below generation 1. That one may lie above people's: a model that has learned little writes noise, which is varied and
    worth nothing, so that diversity alone is no praise.
    """)
    return


@app.cell
def _(Synthetic, explore, mixed, show):
    caps = explore(Synthetic.of(mixed))
    show(caps)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 4. The report

    The same facts, with samples exactly as the models wrote them.
    """)
    return


@app.cell
def _(export, first, mixed, model, people, second, verify):
    question = "Does a model that writes from its own text lose diversity, and is it noticed?"
    report = export([people, model, first, second, mixed], question=question, title="Text that models write")
    f"{report} ({report.stat().st_size / 1e6:.1f} MB), hash {verify(report)[:16]}"
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    Hold every generation against people's text, not against the one before it: slow collapse stays under any tolerance from
    one step to the next. Keep people's text in the mixture, cap depth before share, and let the recipe refuse
    (`Prepare(synthetic=Caps(depth=1, corpus=0.3))`): a corpus that breaks a cap is then not made.
    """)
    return


if __name__ == "__main__":
    app.run()
