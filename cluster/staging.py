"""What jobs need from the network is fetched before they queue: compute nodes often have none, and GPUs must not wait."""

from __future__ import annotations

from collections.abc import Iterable

from lablib.data.catalogue import sources_of
from lablib.data.documents import Source
from lablib.data.sources.mail import MAIL
from lablib.specs import Evaluate, Export, Merge, Midtrain, Prepare, Pretrain, Recipe, Ref, Synthesize
from lablib.specs.contamination import BENCHMARKS
from lablib.specs.recipes import PostTrain


def stage(recipes: Iterable[Recipe]) -> None:
    """Fetch the corpora and the pretrained models that recipes name. Raises `LabError` where they cannot be had."""
    from lablib.data.contamination.registry import presence
    from lablib.models import pretrained

    for recipe in recipes:
        for model in _models(recipe):
            pretrained.resolve(model)
        for source in _sources(recipe):
            source.fetch()
        if isinstance(recipe, Prepare) and recipe.decontaminate is not None:
            for benchmark in recipe.decontaminate.benchmarks:
                if isinstance(benchmark, str) and benchmark in BENCHMARKS:
                    presence(benchmark, may_fetch=True)  # one that cannot be had is named in the run's report


def _sources(recipe: Recipe) -> tuple[Source, ...]:
    """Corpora that the job reads itself."""
    if isinstance(recipe, Prepare):
        scored = recipe.clean is not None and recipe.clean.min_quality is not None
        named = [corpus for corpus in recipe.corpora if isinstance(corpus, str)]
        found = [source for corpus in named for source in sources_of(corpus, recipe.max_bytes)]
        return (*found, *((MAIL,) if scored else ()))
    if isinstance(recipe, Pretrain | Synthesize) and isinstance(recipe.data, str):
        return sources_of(recipe.data)
    return ()


def _models(recipe: Recipe) -> list[str]:
    if isinstance(recipe, PostTrain | Export | Synthesize):
        named: list[object] = [recipe.model]
    elif isinstance(recipe, Midtrain):
        named = [recipe.start]
    elif isinstance(recipe, Merge):
        named = list(recipe.models)
    elif isinstance(recipe, Evaluate):
        named = list(recipe.models.values())
    else:
        named = []
    return [str(model) for model in named if not isinstance(model, Ref)]
