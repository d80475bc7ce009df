import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Tokenizer")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # Choose a tokenizer

    **The question:** how large should the vocabulary be, on which text should it be learnt, and what does a wrong choice
    cost? The tokenizer is frozen before pretraining: every row of the embedding is bound to one of its ids.
    """)
    return


@app.cell
def _():
    import os

    import marimo as mo
    import pandas as pd

    from cluster import submit
    from lablib import Prepare
    from lablib.data.tokenizer import fertility, load
    from lablib.explorers import VocabularyPlan
    from widgets import explore, show, watch

    tiny = os.environ.get("LAB_TINY") == "1"
    return Prepare, VocabularyPlan, explore, fertility, load, mo, os, pd, show, submit, tiny, watch


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 1. What a larger vocabulary buys, and what it costs

    Every point is a measurement (`python -m bench.data.tokenizing --fertility`): one byte-level BPE, trained on the corpus
    `core` and cut to each size, and the tokenizers of Llama 3.1, Qwen3, Gemma 3, GPT-4 and GPT-4o on the same text.

    **What you should see:** on the domains that the tokenizer was trained on, each doubling saves less than the one before.
    Choose a language that `core` does not have and the published tokenizers are far ahead: the training text matters more
    than the size. Choose a small model and the green curve and the blue one part, because the head grows faster than the
    sequences shrink.
    """)
    return


@app.cell
def _(VocabularyPlan, explore):
    plan = explore(VocabularyPlan(vocab=32_768, text="code", model="smollm2-135m"))
    return (plan,)


@app.cell
def _(plan, show):
    show(plan)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 2. Train one

    `Prepare` trains the tokenizer on text in the mixture's proportions and writes token shards with it. The encoder is the
    fastest installed one whose ids equal the reference's on this corpus; the manifest says which.
    """)
    return


@app.cell
def _(Prepare, submit, tiny):
    data = submit(Prepare(name="data", corpus="core", vocab=4096, max_bytes="2 MB" if tiny else "24 MB"))
    return (data,)


@app.cell
def _(data, show, watch):
    show(watch([data]))
    return


@app.cell
def _(data, fertility, load, pd):
    data.wait()
    words = data.artefact_path("tokenizer")
    texts = fertility.heldout(data.artefact_path("data"), words, 100_000)
    measured = pd.DataFrame(
        [(row.text, row.vocab, row.bytes_per_token) for row in fertility.by_size("mine", load(words), texts)],
        columns=["text", "vocabulary", "bytes a token"],
    )
    measured.pivot(index="text", columns="vocabulary", values="bytes a token").round(2)
    return (measured,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## 3. The freeze

    A model's config and its data's manifest carry the tokenizer's hash; a stage whose tokenizer has another one stops and
    says both. New data joins the old model by taking its tokenizer, whatever `vocab` says:
    """)
    return


@app.cell
def _(Prepare, data):
    more = Prepare(name="more", corpus="stdlib", tokenizer=data.tokenizer)
    f"{data.state}: {more.tokenizer}"
    return (more,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Conclusion

    **What you should see:** more bytes a token with every doubling, and prose ahead of code. For a model of this lab's size
    a few thousand tokens are enough: more would put its parameters into rows that it seldom reads. Compare models with
    different tokenizers by bits per byte, never by loss per token.
    """)
    return


if __name__ == "__main__":
    app.run()
