"""The recipes, one class a stage: prepare → pretrain → midtrain → SFT → preference, reward → GRPO, PPO → evaluate → export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from lablib.specs.afterwards import Calibrate, Evaluate, Export
from lablib.specs.balance import Balance
from lablib.specs.base import Spec
from lablib.specs.batching import BatchRamp, Steps
from lablib.specs.cleaning import Clean, Scrub
from lablib.specs.contamination import Decontaminate
from lablib.specs.data import Mixture, Ref
from lablib.specs.dedup import Dedup, Repeats
from lablib.specs.errors import LabError
from lablib.specs.mixtures import Curriculum, mean
from lablib.specs.model import ModelSpec
from lablib.specs.posttrain import GRPO, PPO, SFT, ModelInput, PostTrain, Preference, Reward, Sampled
from lablib.specs.recipe import (
    INTEGERS,
    Attention,
    CrossEntropy,
    MuP,
    Offload,
    Optimizer,
    Precision,
    Recipe,
    Recompute,
    Schedule,
    Shared,
)
from lablib.specs.refining import Join, Verify
from lablib.specs.stability import Stability
from lablib.specs.synthetic import Caps, Synthesize
from lablib.specs.tokenizing import TokenizerInput, TokenizerSpec
from lablib.specs.units import Bytes, Count


def _named_model(value: Any) -> Any:
    """A catalogue name stands for its ModelSpec. Raises ValueError with near names."""
    if not isinstance(value, str):
        return value
    from lablib.specs.catalog import catalog

    try:
        return catalog.models[value]
    except LabError as error:
        raise ValueError(str(error)) from None


def _kind_of_mixture(value: Any) -> str:
    """By its keys, so that what is wrong in one kind is not said of the others too."""
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    return "curriculum" if "phases" in keys else "ref" if "run" in keys else "mixture"


MixtureInput = Annotated[
    Annotated[Mixture, Tag("mixture")] | Annotated[Curriculum, Tag("curriculum")] | Annotated[Ref, Tag("ref")],
    Discriminator(_kind_of_mixture),
]


FUNNEL = ("clean", "dedup", "repeats", "decontaminate", "scrub", "verify", "join")
"""Steps of data preparation between reading and tokenising, in this order."""


class Prepare(Shared):
    """Corpus → tokenizer → token shards: what pretraining reads. Each of its `tasks` has `threads` processes."""

    EXECUTION = Shared.EXECUTION | {"part_bytes"}
    stage: Literal["prepare"] = "prepare"
    corpus: Ref | str | Annotated[tuple[Ref | str, ...], Field(min_length=1)] = "core"
    """``core`` (pinned packages), another corpus' name, a folder, file or pattern of files (text, code, JSON lines, Parquet,
    WARC, WET, tar, compressed or not), ``hf:<data set>``, a reference to a corpus that a run writes (`Synthesize`), or several of these."""
    mixture: Mixture = Mixture()
    tokenizer: TokenizerInput = TokenizerSpec()
    """Which kind to train. A reference to another run's tokenizer or model, or a folder with a ``tokenizer.json``, is taken
    as it is, so that new data joins an old model; `vocab` is then that tokenizer's."""
    vocab: Count = 4096
    max_bytes: Bytes | None = None
    """Cap on raw text, taken deterministically from every domain in proportion."""
    heldout: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of documents (by hash) kept out of training."""
    clean: Clean | None = None
    """Thresholds on quality signals; None keeps every document that the corpus has."""
    dedup: Dedup | None = None
    """Near-duplicate removal; exact duplicates go in any case."""
    repeats: Repeats | None = None
    """Text that documents share, which is taken out of them."""
    decontaminate: Decontaminate | None = None
    """Benchmarks whose items must not be in the data."""
    scrub: Scrub | None = None
    """Personal data that is replaced by placeholders."""
    verify: Verify | None = None
    """Code whose own tests must pass."""
    join: Join | None = None
    """Documents of one book or one repository, which become one long document."""
    synthetic: Caps | None = None
    """Caps on text that models wrote, above which the run refuses to make data; None only says what the usual caps would
    drop."""
    part_bytes: Bytes = 64_000_000
    """Bytes of sources that are one piece of the work; a corpus has at most 4,096 of them. What comes out does not depend on it."""

    @model_validator(mode="before")
    @classmethod
    def _by_preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("clean"), str):
            data = {**data, "clean": {"preset": data["clean"]}}
        return data

    @property
    def corpora(self) -> tuple[Ref | str, ...]:
        """What `corpus` names, one or several."""
        return self.corpus if isinstance(self.corpus, tuple) else (self.corpus,)

    def science(self) -> dict[str, Any]:
        """As in `Recipe`; a step that is not taken and the default tokenizer do not count, so that older runs stay the
        same experiment. `vocab` does not count where the tokenizer is there already."""
        found = super().science()
        if not isinstance(self.tokenizer, TokenizerSpec):
            del found["vocab"]
        elif self.tokenizer == TokenizerSpec():
            del found["tokenizer"]
        return {name: value for name, value in found.items() if value is not None or name not in FUNNEL}


class Pretrain(Recipe):
    """Causal language modelling on packed documents."""

    EXECUTION = Recipe.EXECUTION | {
        "eval_every",
        "permanent_every",
        "inspect_every",
        "cross_entropy",
        "attention",
        "offload",
        "expert_imbalance",
        "async_checkpoints",
    }
    stage: Literal["pretrain"] = "pretrain"
    model: Annotated[ModelSpec, BeforeValidator(_named_model)]
    data: Ref | str = "core"
    """A Prepare run's data, or a corpus to prepare with defaults at the start."""
    mixture: MixtureInput = Mixture()
    """Shares of tokens by domain; a curriculum's phases are stretched over `tokens`. A reference is to a run that makes a
    mixture (`DoReMi`)."""
    tokens: Count
    seq_len: int = Field(default=2048, gt=1)
    batch_tokens: Count = 524_288
    """Tokens of one optimiser step, over all ranks."""
    batch_ramp: BatchRamp | None = None
    """Smaller steps at the start."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    mup: MuP | None = None
    """Scales initial weights and learning rates from those tuned on a smaller model."""
    recompute: Recompute = "none"
    precision: Precision = "bf16"
    compile: bool = False
    cross_entropy: CrossEntropy = "full"
    attention: Attention = "auto"
    """What computes attention; the manifest's ``ran`` says what did."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of log²Z in the gradient, Z the softmax's denominator: keeps logits from drifting (1e-4 in PaLM, arXiv 2204.02311 §5)."""
    balance: Balance | None = None
    """What keeps experts in equal use; None: nothing does."""
    offload: Offload = "none"
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """Precision in which gradients are summed over data-parallel ranks."""
    expert_imbalance: float = Field(default=1.0, ge=1)
    """What the planner takes for the tokens of the busiest expert-parallel rank over the mean. Single experts of trained
    routers lie 1.04 (loss-free balancing) to 1.7 (auxiliary loss) above theirs (arXiv 2408.15664 Table 2)."""
    document_mask: bool = True
    """Attention stays inside each packed document."""
    stability: Stability = Stability()
    """What is done about loss spikes."""
    checkpoint_every: int | None = Field(default=None, gt=0)
    """Steps between checkpoints; None saves about ten times a run."""
    keep_checkpoints: int = Field(default=2, gt=0)
    permanent_every: int | None = Field(default=None, gt=0)
    """Steps between checkpoints that are kept for good; None keeps none of them."""
    async_checkpoints: bool = False
    """Write checkpoints in a thread while training goes on; the host holds a copy of each rank's state meanwhile. The run is
    the same, bit for bit."""
    eval_every: int | None = Field(default=None, gt=0)
    """Steps between held-out evaluations; None evaluates about five times a run."""
    eval_tokens: Count = 65_536
    log_every: int = Field(default=1, gt=0)
    inspect_every: int | None = Field(default=None, gt=0)
    """Logged steps between looks inside the layers (activations, attention logits, gradients, routers); None takes none."""

    @field_validator("precision", mode="before")
    @classmethod
    def _can_learn(cls, value: Any) -> Any:
        if value in INTEGERS:
            raise ValueError(
                f"precision={value!r} is for serving: updates are smaller than a step of an integer grid and would be rounded "
                "away; use 'bf16' (or 'fp8' on Hopper), and quantise the trained model"
            )
        return value

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        model, tp = self.model, self.parallelism.tp
        if self.recompute == "budget" and not self.compile:
            raise ValueError("recompute='budget' is decided by the compiler; set compile=True")
        if self.mup and model.tied_embeddings:
            raise ValueError("mup: a tied head cannot be scaled apart from the embedding; set tied_embeddings=False")
        if self.mup and self.optimizer.kind not in ("adamw", "adamw-bf16", "lion"):
            raise ValueError(
                f"mup: its rates are for Adam-like updates, not optimizer.kind={self.optimizer.kind!r}; use 'adamw'"
            )
        if self.balance and not model.moe:
            raise ValueError(f"balance: a model of family={model.family!r} has no experts; leave it out")
        if self.seq_len > model.max_seq_len:
            raise ValueError(
                f"seq_len={self.seq_len} is more than the model's max_seq_len={model.max_seq_len}; raise that, or stretch a trained model (lablib.specs.further.extend)"
            )
        if model.heads % tp or model.ffn % tp:
            raise ValueError(f"parallelism.tp={tp} must divide the model's heads={model.heads} and ffn={model.ffn}")
        if abs(self.step_tokens / self.batch_tokens - 1) > 0.1:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is not near a multiple of seq_len × micro_batch_size × data-parallel "
                f"ranks = {self._round_tokens}; {self.step_tokens} is the nearest"
            )
        if self.batch_ramp:
            self.batch_ramp.check(self.step_tokens, self._round_tokens)
        return self

    @property
    def blend(self) -> Mixture | Curriculum | Ref:
        """What is read: the mixture, here alone."""
        return self.mixture

    @property
    def mean_mixture(self) -> Mixture:
        """The one mixture with the same tokens of every domain. Raises `LabError` where another run makes the mixture."""
        blend = self.blend
        if isinstance(blend, Ref):
            raise LabError(f"mixture={blend} is not known before run {blend.run} has made it; give a mixture")
        return mean(blend)

    @property
    def _round_tokens(self) -> int:
        return self.seq_len * self.parallelism.micro_batch_size * self.parallelism.dp

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimiser step: `batch_tokens` rounded to whole micro-batches on every rank."""
        return max(1, round(self.batch_tokens / self._round_tokens)) * self._round_tokens

    @property
    def steps(self) -> int:
        """Optimiser steps; the last one completes `tokens`."""
        return self.cut.count

    @property
    def cut(self) -> Steps:
        """The optimiser steps and the tokens of each; sizes are rounded to whole micro-batches on every rank."""
        ramp = self.batch_ramp
        sizes = ramp.sizes(self.step_tokens, self._round_tokens) if ramp else ()
        return Steps.of(self.tokens, self.step_tokens, sizes, ramp.tokens if ramp else 0)

    def science(self) -> dict[str, Any]:
        """As in `Recipe`, with the batch that is really taken: rounding differently is another experiment. The usual
        stability does not count: a run that it touches says so."""
        found = {**super().science(), "batch_tokens": self.step_tokens}
        if self.batch_ramp:
            found["batch_ramp"] = self.cut.stages
        usual = Stability().model_dump(mode="json")
        found["stability"] |= {name: usual[name] for name in Stability.EXECUTION}
        if found["stability"] == usual:
            del found["stability"]
        return found


class DoReMi(Recipe):
    """Learn a mixture by group DRO (arXiv 2305.10429): a small model trains beside a finished one of the same data, and what
    it still loses more on than that gets weight. Makes the artefact ``mixture``, which `Pretrain.mixture` takes."""

    stage: Literal["doremi"] = "doremi"
    proxy: Pretrain
    """Model, data, tokens, batch, optimiser and schedule; its mixture only names the domains (empty: all), which are read
    alike whatever `max_epochs` says. It is not evaluated."""
    reference: Ref
    """A model that was trained on the same data, usually of the proxy's size and in natural proportions."""
    rate: float = Field(default=1.0, gt=0)
    """Step size of the weights' exponentiated gradient; 1 in the paper."""
    smoothing: float = Field(default=1e-3, ge=0, lt=1)
    """Share of the uniform distribution that is mixed in at each step; 1e-3 in the paper."""

    @model_validator(mode="after")
    def _at_once(self) -> Self:
        size = self.proxy.step_tokens // self.proxy.seq_len
        if self.gpus > 1 or self.proxy.gpus > 1:
            raise ValueError("the proxy of DoReMi trains in one process; leave every degree of parallelism at 1")
        if self.proxy.parallelism.micro_batch_size != size:
            raise ValueError(f"the proxy of DoReMi takes a step at once; set proxy.parallelism.micro_batch_size={size}")
        if not isinstance(self.proxy.data, Ref):
            raise ValueError(
                f"proxy.data={self.proxy.data!r}: refer to the data of the Prepare run that the reference was trained on"
            )
        for name, usual in (
            ("mup", None),
            ("z_loss", 0.0),
            ("balance", None),
            ("batch_ramp", None),
            ("attention", "auto"),
            ("stability", Stability()),
        ):
            if (value := getattr(self.proxy, name)) != usual:
                raise ValueError(f"proxy.{name}={value!r}: the proxy of DoReMi trains without it; leave it out")
        return self

    def refs(self) -> list[Ref]:
        """As in `Recipe`, with the proxy's."""
        return [*super().refs(), *self.proxy.refs()]

    def science(self) -> dict[str, Any]:
        """As in `Recipe`; how the proxy executes does not count."""
        return {**super().science(), "proxy": self.proxy.science()}


__all__ = [
    "GRPO",
    "PPO",
    "SFT",
    "Calibrate",
    "DoReMi",
    "Evaluate",
    "Export",
    "ModelInput",
    "PostTrain",
    "Preference",
    "Prepare",
    "Pretrain",
    "Reward",
    "Sampled",
    "Spec",
    "Synthesize",
]
