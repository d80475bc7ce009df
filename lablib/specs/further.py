"""From the recipe that made a model to the recipe that trains it further, by the field's rules of thumb."""

from __future__ import annotations

from typing import Any

from lablib.specs.data import Mixture, Ref
from lablib.specs.errors import LabError
from lablib.specs.midtrain import ANNEAL, EXTEND_TOKENS, GENTLE, REPLAY, Midtrain, Replay
from lablib.specs.mixtures import Curriculum
from lablib.specs.posttrain import ModelInput
from lablib.specs.recipe import Optimizer, Parallelism
from lablib.specs.recipes import Pretrain
from lablib.specs.rope import Stretch, stretched

_PASSED_ON = ("model", "data", "mixture", "seq_len", "batch_tokens", "optimizer", "mup", "recompute", "precision", "compile",
              "cross_entropy", "attention", "z_loss", "balance", "offload", "reduce_dtype", "document_mask", "stability", "eval_tokens",
              "parallelism", "threads", "seed")  # fmt: skip


def anneal(parent: Pretrain, start: ModelInput, mixture: Mixture | Curriculum, share: float = ANNEAL, **changes: Any) -> Midtrain:  # fmt: skip
    """The last `share` of all tokens on a better mixture, the rate decaying from the parent's peak to nothing.

    `start` should be of the stable phase: a model trained under a constant rate, or a checkpoint of it (``from_step=``, which
    then counts as the parent's length). `changes` are fields of `Midtrain`. Raises `LabError` for a share that is not
    between 0 and 1.
    """
    if not 0 < share < 1:
        raise LabError(f"share={share}: annealing takes a share between 0 and 1 of all tokens, usually {ANNEAL}")
    step = changes.get("from_step")
    before = parent.cut.before(step) if step else parent.tokens
    tokens = max(1, round(before * share / (1 - share)))
    return _further(parent, {"kind": "anneal", "start": start, "mixture": mixture, "tokens": tokens, **changes})


def continue_on(parent: Pretrain, start: ModelInput, data: Ref | str, domain: Mixture, tokens: int | str, replay: float | Replay = REPLAY, **changes: Any) -> Midtrain:  # fmt: skip
    """A new domain at a tenth of the parent's peak rate; `replay` is the share of the parent's mixture beside it, or a `Replay`.

    `data` is of a Prepare run over the old and the new corpus with the model's own tokenizer
    (``Prepare(corpus=(old, new), tokenizer=run.model)``). `changes` are fields of `Midtrain`. Raises `LabError` where the
    parent's mixture has no weights to replay by.
    """
    if not isinstance(replay, Replay):
        old = parent.mean_mixture
        if not old.weights:
            raise LabError(f"replay={replay}: the parent read its domains in natural proportions; give replay=Replay(mixture=Mixture(weights={{...}}), share={replay})")  # fmt: skip
        replay = Replay(mixture=old, share=replay)
    settings = {"kind": "continue", "start": start, "data": data, "mixture": domain, "tokens": tokens, "replay": replay}
    return _further(parent, {**settings, "optimizer": _gently(parent), **changes})


def extend(parent: Pretrain, start: ModelInput, seq_len: int, method: Stretch = "yarn", theta: float | None = None, tokens: int | str = EXTEND_TOKENS[0], **changes: Any) -> Midtrain:  # fmt: skip
    """Sequences of `seq_len` tokens at a tenth of the parent's peak rate, positions stretched by `method`, from the base
    `theta` where one is given (`lablib.specs.rope.stretched`).

    To lengthen in stages call it again with the recipe that it made and that run's model. The batch keeps its tokens, and
    each micro-batch as far as it can. Raises `LabError` where `seq_len` is not longer, or the model has no rotary positions.
    """
    model = stretched(parent.model, parent.seq_len, seq_len, method, theta)
    own = parent.parallelism
    fewer = own.replace(micro_batch_size=max(1, own.micro_batch_size * parent.seq_len // seq_len))
    given = changes.get("parallelism", fewer)
    layout = given if isinstance(given, Parallelism) else Parallelism(**given)
    batch = max(parent.batch_tokens, seq_len * layout.micro_batch_size * layout.dp)
    settings = {"kind": "extend", "start": start, "model": model, "seq_len": seq_len, "batch_tokens": batch, "tokens": tokens}  # fmt: skip
    return _further(parent, {**settings, "optimizer": _gently(parent), **changes, "parallelism": layout})


def _gently(parent: Pretrain) -> Optimizer:
    if isinstance(parent, Midtrain) and parent.kind != "anneal":
        return parent.optimizer
    return parent.optimizer.replace(learning_rate=GENTLE * parent.optimizer.learning_rate)


def _further(parent: Pretrain, changes: dict[str, Any]) -> Midtrain:
    return Midtrain(**{**{name: getattr(parent, name) for name in _PASSED_ON}, **changes})
