"""Published laws of hyper-parameters: what learning rate, batch and weight decay a pretraining of some scale usually wants.

>>> from lablib.plan.scaling import advice, suggested
>>> advice(recipe)       # every law beside the recipe's own numbers, and where each was fitted
>>> suggested(recipe)    # the recipe with learning rate and batch filled in; `plan_for` and layout searches use it

The laws are for AdamW with a decayed schedule, one pass over the data and standard parametrisation. They disagree by
factors of two to five, and far more outside of what they were fitted on; `python -m bench.planner.hyperparameters` holds
each against published runs and against optima found by grid search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import log, nan
from typing import Literal, NamedTuple

from lablib.plan import flops
from lablib.plan.grid import least
from lablib.plan.params import count
from lablib.specs import Pretrain, Recipe, Spec
from lablib.specs.recipe import OptimizerKind
from lablib.specs.units import show_count, show_flops

Quantity = Literal["learning_rate", "batch_tokens", "critical_batch_tokens", "weight_decay"]
LIKE_ADAM: tuple[OptimizerKind, ...] = ("adamw", "adamw-8bit", "adamw-bf16", "muon", "soap", "shampoo")
"""Rules that take AdamW's rates; of the others no law is known here."""
FAR = 4.0
"""Factor beyond all laws from which a plan warns. Of the 34 runs in bench/planner/hyperparameters.csv one, GPT-3 6.7B, is so far off."""


class Scale(NamedTuple):
    """How large a pretraining is, in the laws' own terms."""

    params: float
    """Parameters that a token visits, without embeddings and head."""
    tokens: float
    flops: float
    """Of the whole training without embeddings and head, attention counted in full: DeepSeek's C = M·D (arXiv 2401.02954
    §3.2)."""

    @classmethod
    def of(cls, recipe: Pretrain) -> Scale:
        """The scale of a recipe."""
        model, size = recipe.model, count(recipe.model)
        parts = flops.forward(model, recipe.seq_len, least(recipe.seq_len, model.sliding_window or recipe.seq_len))
        a_token = 3 * float(sum(value for part, value in parts.items() if part != "head"))
        return cls(size.active - size.embedding, recipe.tokens, a_token * recipe.tokens)

    def at(self, flops: float) -> Scale:
        """As many tokens a parameter for another amount of compute: parameters and tokens grow alike."""
        grown = (flops / self.flops) ** 0.5
        return Scale(self.params * grown, self.tokens * grown, flops)


class HyperLaw(NamedTuple):
    """One published law of one quantity."""

    name: str
    quantity: Quantity
    formula: str
    of: Callable[[Scale], float]
    fitted: dict[str, tuple[float, float]]
    """Lowest and highest of the fields of `Scale` that it holds for."""
    source: str
    extends: bool = True
    """Whether it means anything beyond `fitted`."""

    def value(self, scale: Scale) -> float:
        """What it says; NaN where it means nothing."""
        return self.of(scale) if self.extends or not self.outside(scale) else nan

    def outside(self, scale: Scale) -> str:
        """Which fields of the scale it was not fitted for, in words; empty inside."""
        return ", ".join(_beyond(scale, field, *ends) for field, ends in self.fitted.items() if not ends[0] <= getattr(scale, field) <= ends[1])  # fmt: skip


def _beyond(scale: Scale, field: str, low: float, high: float) -> str:
    value: float = getattr(scale, field)
    shown = show_flops if field == "flops" else show_count
    word, end = ("below", low) if value < low else ("above", high)
    return f"{shown(value)} {'' if field == 'flops' else f'{field} '}{word} {shown(end)}"


STEP = {"params": (5.9e7, 1.1e9), "tokens": (2e9, 1e11)}
"""Of the grids behind Step Law; the ends from memory, its checkpoints' names (StepLaw/StepLaw-N_119M-D_7.0B-…) lie inside."""
DEEPSEEK = {"flops": (1e17, 9e23)}
"""Fitted on 1e17 to 2e19 (from memory) and used by its authors for their 67B model, 8.7e23."""
LAWS: tuple[HyperLaw, ...] = (
    HyperLaw("Step Law", "learning_rate", "1.79 · N^-0.713 · D^0.307", lambda s: 1.79 * s.params**-0.713 * s.tokens**0.307, STEP, "arXiv 2503.04715"),
    HyperLaw("DeepSeek LLM", "learning_rate", "0.3118 · C^-0.1250", lambda s: 0.3118 * s.flops**-0.1250, DEEPSEEK, "arXiv 2401.02954 eq. 1"),
    HyperLaw("Kaplan", "learning_rate", "0.003239 - 0.0001395 · ln N", lambda s: 0.003239 - 0.0001395 * log(s.params),
             {"params": (768, 1.5e9), "tokens": (2.2e7, 1.3e11)}, "arXiv 2001.08361 App. D.6, at batches of 0.5M tokens; ranges from memory", extends=False),
    HyperLaw("Step Law", "batch_tokens", "0.58 · D^0.571", lambda s: 0.58 * s.tokens**0.571, STEP, "arXiv 2503.04715"),
    HyperLaw("DeepSeek LLM", "batch_tokens", "0.2920 · C^0.3271", lambda s: 0.2920 * s.flops**0.3271, DEEPSEEK, "arXiv 2401.02954 eq. 1"),
    HyperLaw("Power Lines", "batch_tokens", "2048 · 0.0306 · D^0.383", lambda s: 2048 * 0.0306 * s.tokens**0.383,
             {"params": (1.1e8, 3.3e9), "tokens": (2e9, 1e11)}, "arXiv 2505.13738; the factor and the tokens' range from memory"),
    HyperLaw("Zhang", "critical_batch_tokens", "512 · 22.91 · (D/10⁶)^0.47", lambda s: 512 * 22.91 * (s.tokens / 1e6) ** 0.47,
             {"params": (8.5e7, 1.2e9), "tokens": (1.7e9, 2.5e10)}, "arXiv 2410.21676: above it a fifth more tokens are needed for the same loss"),
)  # fmt: skip
"""Step Law's constants are those of step-law/steplaw's own fits, DeepSeek's agree with its authors' two runs, Kaplan's with a
transcription; Zhang's units (millions of tokens, sequences of 512) follow from the paper's published step counts, which the
tests repeat. What is said to be from memory could not be looked up."""
TIMESCALE = HyperLaw("AdamW timescale", "weight_decay", "B / (η · τ · D), τ = 1.084 · (D/N)^-0.527", lambda s: 1.084 * (s.tokens / s.params) ** -0.527,
                     {"params": (1.1e8, 3.3e9), "tokens": (2e9, 1e11)}, "arXiv 2505.13738; constants and the tokens' range from memory")  # fmt: skip
"""τ, the share of a run that AdamW averages its updates over: they last 1/(η·λ) steps (arXiv 2405.13698), so τ = B/(η·λ·D). The
constants are from memory, so the weight decay is shown and never filled in; they put Llama 2's λ of 0.1 at 0.07 to 0.13."""


class Said(Spec):
    """What one law says of a recipe, beside what the recipe says."""

    quantity: Quantity
    law: str
    value: float
    own: float
    """The recipe's; of the critical batch its batch."""
    outside: str
    """Where the law was not fitted for this scale; empty inside."""
    formula: str
    source: str

    @property
    def ratio(self) -> float:
        """The recipe's over the law's."""
        return self.own / self.value


def advice(recipe: Pretrain) -> tuple[Said, ...]:
    """Every law on the recipe's scale, by quantity. A law that means nothing there is left out, and so are learning rates
    and weight decay where `optimizer.kind` or `mup` has rates of its own, or training goes on from a model."""
    scale, rates = Scale.of(recipe), recipe.optimizer
    values = [(law, law.value(scale)) for law in LAWS if law.quantity != "learning_rate" or _rated(recipe)]
    if _rated(recipe):
        share = TIMESCALE.value(scale) * scale.tokens
        values.append((TIMESCALE, recipe.step_tokens / (rates.learning_rate * share)))
    own = {"learning_rate": rates.learning_rate, "weight_decay": rates.weight_decay}
    return tuple(
        Said(
            quantity=law.quantity,
            law=law.name,
            value=value,
            own=own.get(law.quantity, recipe.step_tokens),
            outside=law.outside(scale),
            formula=law.formula,
            source=law.source,
        )
        for law, value in values
        if value > 0
    )


def _rated(recipe: Pretrain) -> bool:
    """Whether laws of AdamW's learning rate speak of the recipe: μP's is that of a smaller model, mid-training's follows what
    was before."""
    return type(recipe) is Pretrain and recipe.optimizer.kind in LIKE_ADAM and recipe.mup is None


def learning_rate(scale: Scale) -> float:
    """The lower of Step Law's and DeepSeek LLM's, to two digits: too low a rate costs some tokens, too high a one the run."""
    return float(f"{min(law.of(scale) for law in LAWS if law.quantity == 'learning_rate' and law.extends):.1e}")


def batch_tokens(tokens: float) -> float:
    """Step Law's batch for a training on so many tokens."""
    return next(law.of(Scale(nan, max(tokens, 1.0), nan)) for law in LAWS if law.quantity == "batch_tokens")


def suggested(recipe: Pretrain, batch: bool = True) -> Pretrain:
    """The recipe with numbers of the laws: `learning_rate`, and with `batch` also `batch_tokens` in whole micro-batches of all
    ranks. What the laws do not speak of (`advice`) stays, and so does the batch of a recipe with a `batch_ramp`."""
    changes: dict[str, object] = {}
    if _rated(recipe):
        changes["optimizer"] = recipe.optimizer.replace(learning_rate=learning_rate(Scale.of(recipe)))
    if batch and _batched(recipe):
        layout = recipe.parallelism
        whole = recipe.seq_len * layout.micro_batch_size * layout.dp
        changes["batch_tokens"] = max(1, round(batch_tokens(recipe.tokens) / whole)) * whole
    return recipe.replace(**changes)


def _batched(recipe: Pretrain) -> bool:
    return type(recipe) is Pretrain and recipe.batch_ramp is None


def table(said: Iterable[Said]) -> list[list[str]]:
    """Rows of text: quantity, law, what it says, the recipe's, the recipe's over the law's, where the law was not fitted."""
    return [
        [one.quantity, one.law, _show(one.quantity, one.value), _show(one.quantity, one.own), f"{one.ratio:.2f}", one.outside]
        for one in said
    ]  # fmt: skip


def words(recipe: Pretrain) -> str:
    """What `suggested` would take, in a sentence, and whether that is an extrapolation of every law."""
    better, said = suggested(recipe), advice(recipe)
    rate = [f"learning_rate={better.optimizer.learning_rate:g} (the lower of Step Law and DeepSeek LLM)"] * _rated(
        recipe
    )
    size = [f"batch_tokens={better.batch_tokens:,} (Step Law, in whole micro-batches)"] * _batched(recipe)
    if not rate + size:
        return "The laws suggest nothing for this recipe: its rates and batch follow rules of their own."
    beyond = " No law was fitted at this scale: these are extrapolations." if all(one.outside for one in said) else ""
    return f"Suggested: {' and '.join(rate + size)}.{beyond}"


def _show(quantity: Quantity, value: float) -> str:
    return show_count(value) if "tokens" in quantity else f"{value:.2g}"


def cautions(recipe: Recipe) -> Iterator[str]:
    """Where learning rate or batch of a pretraining from scratch lies more than `FAR` times outside all laws, at least one of
    which was fitted for its scale."""
    if type(recipe) is not Pretrain:
        return
    scale, rate = Scale.of(recipe), recipe.optimizer.learning_rate
    if _rated(recipe) and (ends := far("learning_rate", rate, scale)):
        yield _caution("optimizer.learning_rate", rate, ends, learning_rate(scale))
    if ends := far("batch_tokens", recipe.step_tokens, scale):
        yield _caution("batch_tokens", recipe.step_tokens, ends, batch_tokens(scale.tokens))


def far(quantity: Quantity, own: float, scale: Scale) -> tuple[float, float] | None:
    """The lowest and highest that the laws say, where `own` is `FAR` outside; None where it is not or no law was fitted."""
    laws = [law for law in LAWS if law.quantity == quantity]
    if all(law.outside(scale) for law in laws):
        return None
    values = [value for law in laws if (value := law.value(scale)) > 0]
    low, high = min(values), max(values)
    return None if low / FAR <= own <= high * FAR else (low, high)


def _caution(field: str, own: float, ends: tuple[float, float], better: float) -> str:
    said, low, high, take = (
        _show("batch_tokens" if field == "batch_tokens" else "learning_rate", value) for value in (own, *ends, better)
    )
    return f"{field}={said} is more than {FAR:g} times outside what published laws say for this scale, {low} to {high}; take about {take}"
