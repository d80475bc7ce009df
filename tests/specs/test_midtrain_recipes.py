"""Midtrain and Merge recipes: the guide's rules of thumb as defaults, blends by hand, stretched positions as transformers turns them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lablib.specs import LabError, Merge, Midtrain, Mixture, ModelSpec, Parallelism, Pretrain, Ref, load_recipe
from lablib.specs.batching import BatchRamp
from lablib.specs.further import anneal, continue_on, extend
from lablib.specs.midtrain import Replay
from lablib.specs.recipe import MuP
from lablib.specs.rope import RopeScaling, ntk_theta, stretched

MODEL = ModelSpec(family="qwen3", layers=2, hidden=64, heads=4, head_dim=16, ffn=128, vocab=512, max_seq_len=64)
OLD, NEW = Mixture(weights={"web": 0.75, "code": 0.25}), Mixture(weights={"law": 0.9, "code": 0.1}, max_epochs=2)
PARENT = Pretrain(model=MODEL, tokens="85M", seq_len=64, batch_tokens=4096, mixture=OLD, schedule={"kind": "constant"})
RUN = Ref(run="parent", artefact="model", science=PARENT.science_hash)


def test_annealing_takes_fifteen_percent_of_all_tokens_and_decays_over_all_of_it() -> None:
    made = anneal(PARENT, RUN, NEW)
    assert made.tokens == 15_000_000 and made.tokens / (made.tokens + PARENT.tokens) == pytest.approx(0.15)
    assert (made.schedule.warmup, made.schedule.decay) == (0, 1)
    assert made.optimizer.learning_rate == PARENT.optimizer.learning_rate
    with pytest.raises(LabError, match="share=1"):
        anneal(PARENT, RUN, NEW, share=1)


def test_a_checkpoint_inside_a_growing_batch_has_read_less_than_whole_batches() -> None:
    """1,000 steps of which 489 read 1,024 tokens each and 245 read 2,048."""
    ramped = PARENT.replace(batch_ramp=BatchRamp(start=1024, tokens=1_000_000))
    read = 489 * 1024 + 245 * 2048 + 266 * 4096
    assert anneal(ramped, RUN, NEW, from_step=1000).tokens == round(read * 0.15 / 0.85)


def test_scaled_rates_stay_scaled() -> None:
    tuned = MuP(hidden=32)
    assert anneal(PARENT.replace(mup=tuned), RUN, NEW).mup == tuned


def test_what_is_left_out_of_a_setting_is_as_its_kind_has_it() -> None:
    common = {"model": MODEL, "start": RUN, "tokens": "1M", "seq_len": 64, "batch_tokens": 4096}
    gentle = Midtrain(kind="continue", optimizer={"weight_decay": 0.05}, **common)
    assert gentle.optimizer.learning_rate == pytest.approx(3e-5) and gentle.optimizer.weight_decay == 0.05
    shaped = Midtrain(schedule={"shape": "1-sqrt"}, **common)
    assert (shaped.schedule.shape, shaped.schedule.warmup, shaped.schedule.decay) == ("1-sqrt", 0, 1)


def test_a_new_domain_takes_a_tenth_of_the_rate_and_a_fifth_of_the_old_mixture() -> None:
    made = continue_on(PARENT, RUN, RUN.replace(artefact="data"), NEW, "10M")
    assert made.optimizer.learning_rate == pytest.approx(PARENT.optimizer.learning_rate / 10)
    weights = {"law": 0.8 * 0.9, "code": 0.8 * 0.1 + 0.2 * 0.25, "web": 0.2 * 0.75}
    assert made.mean_mixture.weights == pytest.approx(weights) and made.mean_mixture.max_epochs == 2
    again = extend(made, RUN, 128)
    assert again.optimizer == made.optimizer, "the rate is lowered once"


def test_a_parent_in_natural_proportions_has_nothing_to_replay_by() -> None:
    with pytest.raises(LabError, match="natural proportions"):
        continue_on(PARENT.replace(mixture=Mixture()), RUN, RUN, NEW, "10M")


@given(st.floats(0, 0.99), st.floats(0.01, 0.99))
def test_a_blend_is_a_mixture_with_the_old_share(share: float, law: float) -> None:
    new = Mixture(weights={"law": law, "tax": 1 - law})
    found = Replay(mixture=OLD, share=share).blend(new).weights
    assert found["web"] + found["code"] == pytest.approx(share)
    assert found["law"] == pytest.approx(law * (1 - share))


def test_extending_defaults_to_a_billion_tokens_at_the_same_batch() -> None:
    made = extend(PARENT, RUN, 256)
    assert made.tokens == 10**9 and made.step_tokens == PARENT.step_tokens and made.model.max_seq_len == 256
    assert Midtrain(kind="extend", model=MODEL, start=RUN, seq_len=64).tokens == 10**9
    several = PARENT.replace(parallelism=Parallelism(micro_batch_size=16))
    fewer = extend(several, RUN, 256)
    assert (fewer.step_tokens, fewer.parallelism.micro_batch_size) == (PARENT.step_tokens, 4)
    assert extend(several, RUN, 2048).parallelism.micro_batch_size == 1
    assert extend(several, RUN, 256, parallelism={"micro_batch_size": 2}).parallelism.micro_batch_size == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start": "folder", "from_step": 10}, "from_step=10"),
        ({"start": RUN, "replay": {"mixture": {}}}, "replay"),
        ({"start": RUN, "kind": "grow"}, "kind"),
    ],
)
def test_what_a_midtrain_refuses(fields: dict[str, object], said: str) -> None:
    with pytest.raises(LabError, match=said):
        Midtrain(model=MODEL, tokens="1M", seq_len=64, batch_tokens=4096, mixture=NEW, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"models": ("a",)},
        {"models": ("a",), "steps": (1, 2)},
        {"models": (RUN, RUN), "steps": (1, 2)},
        {"models": (RUN,), "steps": (2, 1)},
        {"models": (RUN,), "steps": (2,)},
    ],
)
def test_a_merge_of_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(LabError):
        Merge(**fields)


def test_the_documented_files_are_recipes(tmp_path: Path) -> None:
    """The one that is written by hand, and the one that Python writes of a run's checkpoints."""
    text = (Path(__file__).parents[2] / "docs" / "midtraining.md").read_text(encoding="utf-8")
    (by_hand,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "merge.json").write_text(by_hand)
    assert load_recipe(tmp_path / "merge.json") == Merge(models=("runs/one/model", "runs/other/model"), average="ema", decay=0.5)  # fmt: skip
    of_a_run = Merge(models=(RUN,), steps=(8000, 9000))
    of_a_run.save(tmp_path / "merge.json")
    assert load_recipe(tmp_path / "merge.json") == of_a_run


@settings(deadline=None)
@given(st.integers(2, 9), st.floats(0, 0.99))
def test_the_exponential_mean_by_its_recursion(count: int, decay: float) -> None:
    weights = Merge(models=(RUN,) * count, average="ema", decay=decay).weights
    mean = torch.eye(count, dtype=torch.float64)[0]
    for each in torch.eye(count, dtype=torch.float64)[1:]:
        mean = decay * mean + (1 - decay) * each
    assert weights == pytest.approx(mean.tolist(), abs=1e-12) and sum(weights) == pytest.approx(1)


def frequencies(model: ModelSpec) -> torch.Tensor:
    """As a model that transformers builds turns its pairs of features, and what it scales attention by."""
    from transformers import AutoModelForCausalLM

    rotary = AutoModelForCausalLM.from_config(model.to_hf()).model.rotary_emb
    return torch.cat([rotary.inv_freq, torch.tensor([rotary.attention_scaling])])


def plain(theta: float) -> torch.Tensor:
    return theta ** -(torch.arange(0, 16, 2, dtype=torch.float64) / 16)


def test_ntk_is_transformers_dynamic_base_at_that_length() -> None:
    config = MODEL.to_hf()
    config.rope_parameters = {"rope_type": "dynamic", "factor": 1.0, "rope_theta": MODEL.rope_theta}
    wanted, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=4 * MODEL.max_seq_len)
    longer = stretched(MODEL, 64, 256, "ntk")
    torch.testing.assert_close(frequencies(longer)[:-1], wanted)
    ends = plain(longer.rope_theta) / plain(MODEL.rope_theta)
    assert float(ends[0]) == pytest.approx(1) and float(ends[-1]) == pytest.approx(1 / 4)
    half = ModelSpec(family="nemotron", layers=2, hidden=64, heads=2, ffn=128, vocab=512, max_seq_len=64)
    config = half.to_hf()
    config.rope_parameters = {**config.rope_parameters, "rope_type": "dynamic", "factor": 1.0}
    wanted, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=256)
    torch.testing.assert_close(frequencies(stretched(half, 64, 256, "ntk"))[:-1], wanted)
    assert ntk_theta(1e4, 4, 16) == pytest.approx(1e4 * 4 ** (16 / 14))


def test_linear_divides_every_position() -> None:
    torch.testing.assert_close(frequencies(stretched(MODEL, 64, 256, "linear"))[:-1], (plain(1e4) / 4).float())


def test_yarn_by_the_papers_ramp() -> None:
    """arXiv 2309.00071 §3.2 to 3.4: pairs that turn over 32 times in the trained length stay, under once are divided by the
    factor, between them a ramp over the pairs (whose ends transformers takes whole); attention by 0.1·ln(s) + 1."""
    import math

    model = stretched(MODEL, 64, 256, "yarn")
    turns = [16 * math.log(64 / (often * 2 * math.pi)) / (2 * math.log(1e4)) for often in (32, 1)]
    low, high = max(math.floor(turns[0]), 0), min(math.ceil(turns[1]), 15)
    ramp = ((torch.arange(8, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    wanted = plain(1e4) * (1 - ramp) + plain(1e4) / 4 * ramp
    torch.testing.assert_close(frequencies(model), torch.cat([wanted, torch.tensor([0.1 * math.log(4) + 1])]).float())


def test_stretching_in_stages_counts_from_the_first_length() -> None:
    twice = stretched(stretched(MODEL, 64, 128, "yarn"), 128, 512, "yarn")
    assert twice == stretched(MODEL, 64, 512, "yarn") and twice.rope_scaling and twice.rope_scaling.original == 64
    ntk = stretched(stretched(MODEL, 64, 128, "ntk"), 128, 512, "ntk")
    assert ntk.rope_theta == pytest.approx(stretched(MODEL, 64, 512, "ntk").rope_theta)
    assert stretched(MODEL, 64, 128, "yarn", theta=5e5).rope_theta == 5e5


def test_another_method_does_not_undo_a_stretch() -> None:
    """Under linear all pairs of features were slowed; YaRN, counted from the first length, would turn the fast ones as before."""
    for first, second in (("linear", "yarn"), ("yarn", "linear"), ("yarn", "ntk"), ("linear", "none")):
        once = stretched(MODEL, 64, 128, first)  # type: ignore[arg-type]
        with pytest.raises(LabError, match=f"{first} ×2 already.*go on with method='{first}'"):
            stretched(once, 128, 256, second, theta=1e6)  # type: ignore[arg-type]
    kept = MODEL.replace(rope_scaling=RopeScaling(kind="yarn", factor=2.0, original=64, mscale=0.7))
    far = RopeScaling(
        kind="linear", factor=8.0, original=64
    )  # Gemma 3's way: positions for 512, sequences of 128 and then 256
    assert stretched(MODEL.replace(rope_scaling=far), 128, 256, "linear").rope_scaling == far
    again = stretched(kept, 128, 256, "yarn").rope_scaling
    assert again == RopeScaling(kind="yarn", factor=4.0, original=64, mscale=0.7), "what else the stretch says stays"


def test_linear_after_ntk_divides_what_the_raised_base_turns() -> None:
    raised = stretched(MODEL, 64, 128, "ntk")
    found = frequencies(stretched(raised, 128, 256, "linear"))[:-1]
    torch.testing.assert_close(found, (plain(raised.rope_theta) / 2).float())


def test_the_length_that_linear_counts_from_survives_where_positions_reach_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """512 positions over a factor of 4 would be 128; it was trained at 64. transformers would warn of a key that its "linear" does not ask for."""
    model = stretched(MODEL.replace(max_seq_len=512), 64, 256, "linear")
    back = ModelSpec.from_hf(model.to_hf())
    assert back == model and stretched(back, 256, 512, "linear").rope_scaling == RopeScaling(kind="linear", factor=8.0, original=64)  # fmt: skip
    foreign = model.to_hf().to_dict()
    del foreign["original_max_position_embeddings"]
    assert ModelSpec.from_hf(foreign).rope_scaling == RopeScaling(kind="linear", factor=4.0, original=128)
    assert set(model.to_hf().rope_parameters) == {"rope_theta", "rope_type", "factor"}


@pytest.mark.parametrize("method", ["linear", "yarn", "ntk"])
def test_a_stretched_model_survives_its_config(method: str) -> None:
    for family in ("qwen3", "llama", "gemma3"):
        model = stretched(
            ModelSpec(family=family, layers=6, hidden=64, heads=4, ffn=128, vocab=512), 4096, 16384, method
        )  # type: ignore[arg-type]
        assert ModelSpec.from_hf(model.to_hf()) == model


@pytest.mark.parametrize(
    ("length", "method", "said"), [(64, "yarn", "not longer"), (128, "none", "theta")]
)  # fmt: skip
def test_what_cannot_be_stretched(length: int, method: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        stretched(MODEL, 64, length, method)  # type: ignore[arg-type]
    with pytest.raises(LabError, match="rotary"):
        stretched(ModelSpec(family="gpt2", layers=2, hidden=64, heads=4, ffn=256, vocab=512), 64, 128, "yarn")
