"""Where a pretraining run's tokens and tokenizer come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lablib.data import shards
from lablib.data.tokenizer import lengths, load, require
from lablib.models.checkpoints import MARKER
from lablib.plan.reading import breach
from lablib.runs import Recorder, Run
from lablib.specs import Curriculum, LabError, Midtrain, Mixture, Prepare, Pretrain, Ref
from lablib.specs.mixtures import load_mixture, mean, over
from lablib.train.distributed import World
from lablib.train.start import Start, find_start


@dataclass(frozen=True)
class Source:
    """Token shards, the tokenizer that made them, and in which shares they are read."""

    data: Path
    tokenizer: Path
    mixture: Mixture | Curriculum
    """Stretched over what the run reads."""
    start: Callable[[], Start | None] = lambda: None
    """Finds what the model's weights are at first; None: drawn from the recipe's seed. Every rank calls it; raises `LabError`."""


def find_source(recipe: Pretrain, run: Recorder, world: World) -> Source | None:
    """The recipe's data, verified by checksum on rank 0; a corpus' name is first prepared inside this run.

    None where the run was asked to stop while it prepared.

    Raises `LabError` where the input is missing, where the tokenizer is not the data's, where the model's vocabulary is
    smaller than the tokenizer's, or where the mixture breaks the caps on synthetic text that the data was prepared under. What
    a run begins from is looked for at once only where it has no checkpoint: one that goes on needs no parent.
    """
    data, tokenizer, mixture, begun = world.from_main(lambda: _find(recipe, run))
    if not Path(data).is_dir():
        return None
    mixed = load_mixture(Path(mixture)) if mixture else recipe.blend
    assert not isinstance(mixed, Ref)
    why, refused = breach(recipe, run.path.parent)
    if refused:
        raise LabError(why)

    def start() -> Start | None:
        folder = begun or world.from_main(lambda: find_start(recipe, run))
        return Start(Path(folder)).checked(Path(tokenizer)) if folder else None

    source = Source(Path(data), Path(tokenizer), over(mixed, recipe.cut.tokens), start)
    require(shards.manifest(source.data)["tokenizer"].get("hash"), source.tokenizer, f"data {source.data}")
    if begun:
        start()
    size = load(source.tokenizer).get_vocab_size()
    if size > recipe.model.vocab:
        raise LabError(f"model.vocab={recipe.model.vocab} is smaller than the tokenizer's {size} tokens; set model.vocab to {size} or more")  # fmt: skip
    return source


def _find(recipe: Pretrain, run: Recorder) -> tuple[str, str, str, str]:
    """(Data, tokenizer, the file of a mixture that another run made, the model that this run begins from if it has to)."""
    start = "" if any((run.path / "checkpoints").glob(f"step-*/{MARKER}")) else find_start(recipe, run)
    mixture = str(run.input(recipe.mixture)) if isinstance(recipe.mixture, Ref) else ""
    if isinstance(recipe.data, Ref):
        return str(run.input(recipe.data)), str(run.input(recipe.data.replace(artefact="tokenizer"))), mixture, start
    if not {"data", "tokenizer"} <= set(Run(run.path).artefacts):  # registered last: a folder alone may lack its card
        from lablib.data.prepare import prepare

        run.enter("preparing data")
        mixed = mean(load_mixture(Path(mixture))) if isinstance(recipe.mixture, Ref) else recipe.mean_mixture
        words = {"tokenizer": recipe.start} if isinstance(recipe, Midtrain) else {}
        prepare(Prepare(corpus=recipe.data, mixture=mixed, vocab=recipe.model.vocab, seed=recipe.seed, **words), run)
    return str(run.path / "data"), str(run.path / "tokenizer"), mixture, start


def token_bytes(tokenizer: Path, vocab: int) -> torch.Tensor:
    """Bytes of text that each token id stands for, int64 (vocab,); special and unused ids stand for none. Raises `LabError`
    for a tokenizer that does not tell.
    """
    return torch.from_numpy(lengths(tokenizer, vocab))
