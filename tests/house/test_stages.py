"""A package that is too old is named before a stage fails deep inside it."""

from __future__ import annotations

from importlib import metadata

import pytest

from lablib import stages
from lablib.specs import STAGES, LabError


def test_every_recipe_has_a_stage_that_can_be_imported() -> None:
    assert set(stages._STAGES) == set(STAGES)
    for module, function in stages._STAGES.values():
        assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_the_tested_versions_pass() -> None:
    stages.refuse_old_packages("train")
    stages.refuse_old_packages("data")


def test_an_old_package_is_named_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.40.0" if name == "transformers" else real(name))
    with pytest.raises(LabError, match=r"transformers.*5\.23.*is needed, 4\.40\.0 is installed"):
        stages.refuse_old_packages("train")
