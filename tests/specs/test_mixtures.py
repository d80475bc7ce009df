"""Published mixtures: what a preset keeps, what it changes with a notice, and figures that the publications give."""

from __future__ import annotations

import warnings

import pytest

from lablib.data.mixing import epochs
from lablib.specs import LabError
from lablib.specs.mixtures import MixtureNotice, Published, curriculum, mixtures, preset


def test_every_row_has_a_source_and_a_level() -> None:
    assert len(mixtures) >= 10
    for row in mixtures.values():
        assert row.source and row.weights and min(row.weights.values()) >= 0
        assert not row.complete or abs(row.total - 1) < 2e-3, row.name


def test_olmo_3_epochs_are_those_of_its_pool_and_mix() -> None:
    """The report's table: 137B read as 409B is 3.0 passes, 34.1B as 152B is 4.5, 21.4B as 50.8B is 2.4."""
    wanted = {"Stack-Edu": 3.0, "FineMath3+": 4.5, "arXiv": 2.4, "Common Crawl": 0.55}
    row = mixtures["olmo3"]
    with pytest.warns(MixtureNotice):
        told = epochs(preset("olmo3").weights, 5.93e12, row.pool_tokens)
    for name, passes in wanted.items():
        assert row.epochs[name] == pytest.approx(passes, rel=0.02)
        assert told[name] == pytest.approx(passes, rel=0.02), "from percentages: two roads to one figure"


def test_weights_that_do_not_sum_to_one_are_normalised_with_a_notice() -> None:
    """As SmolLM3's yaml (1.0056) and RegMix's configurations (.787) do."""
    for total in (1.0056, 0.787):
        row = Published(name="odd", title="", level="paper", source="-", weights={"a": total / 4, "b": total * 3 / 4})  # fmt: skip
        made, notices = row.mixture()
        assert made.weights == pytest.approx({"a": 0.25, "b": 0.75})
        assert f"{total:.4f}" in notices[0]


def test_whole_weights_give_no_notice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert preset("llama3").weights["code"] == pytest.approx(0.17)


def test_the_guides_kinds_of_mid_training_are_a_preset_without_notice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = preset("midtrain", {"reasoning-text": "maths", "code-with-passing-tests": "code", "long-documents": "books",
                                   "upsampled-languages": "web", "tool-traces": "code"})  # fmt: skip
    assert made.weights == pytest.approx({"maths": 0.35, "code": 0.33, "books": 0.2, "web": 0.12})
    assert mixtures["midtrain"].level == "guess"


def test_a_partly_known_mixture_says_so() -> None:
    with pytest.warns(MixtureNotice, match=r"65\.2%"):
        assert sum(preset("olmo3-midtrain").weights.values()) == pytest.approx(1)


def test_mapping_is_explicit() -> None:
    own = {"general": {"wiki": 0.4, "crawl": 0.6}, "math+reasoning": "papers", "code": "papers", "multilingual": None}  # fmt: skip
    with pytest.warns(MixtureNotice, match=r"8\.0%"):
        made = preset("llama3", own)
    assert made.weights == pytest.approx({"wiki": 0.2 / 0.92, "crawl": 0.3 / 0.92, "papers": 0.42 / 0.92})


@pytest.mark.parametrize(
    ("onto", "said"),
    [
        ({"general": "web"}, "multilingual"),
        ({"general": "w", "math+reasoning": "m", "code": "c", "multilingual": "x", "cod": "c"}, "has no cod"),
        (dict.fromkeys(("general", "math+reasoning", "code", "multilingual")), "at least one"),
        ({"general": {"a": 0.4}, "math+reasoning": "m", "code": "c", "multilingual": "x"}, "sum to 1"),
    ],
)
def test_a_mapping_with_a_gap_is_refused(onto: dict[str, str | None], said: str) -> None:
    with pytest.raises(LabError, match=said):
        preset("llama3", onto)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(LabError, match="llama3"):
        preset("llama-3")
    with pytest.raises(LabError, match="smollm3"):
        curriculum("nothing")


def test_doremi_moved_the_pile_as_published() -> None:
    before, after = (mixtures[name].weights for name in ("pile", "doremi-pile"))
    assert set(before) == set(after) and len(after) == 22
    assert (before["Pile-CC"], after["Pile-CC"]) == (0.1121, 0.6057)
