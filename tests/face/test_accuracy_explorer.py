"""The accuracy screen: its figures are those of its rows, computed here by NumPy, and it has nothing to submit."""

from __future__ import annotations

import numpy as np
import pytest

from lablib.explorers import Accuracy
from lablib.specs import LabError
from lablib.specs.catalog import rows


@pytest.mark.parametrize("field", ["memory", "throughput"])
def test_headlines_are_the_rows(field: str) -> None:
    kept = [row for row in rows("accuracy") if row["field"] == field]
    ratio = np.array([float(row["predicted"]) / float(row["published"]) for row in kept])
    view = Accuracy(field=field).view()
    assert view.headlines[0].value == f"{100 * np.median(abs(ratio - 1)):.3g} %"
    assert view.headlines[1].value == f"{100 * np.mean(abs(ratio - 1) <= 0.1):.3g} %"
    assert len(view.frames[field]["published"]) == len(kept)
    assert sum(int(row[1]) for row in view.tables[0].rows) == len(kept)


def test_a_source_alone_and_a_source_without_rows() -> None:
    assert Accuracy(field="throughput", source="mpt").view().tables[0].rows[0][0] == "mpt"
    with pytest.raises(LabError, match="mpt"):
        Accuracy(field="memory", source="mpt").view()


def test_there_is_nothing_to_submit() -> None:
    with pytest.raises(LabError, match="published"):
        _ = Accuracy().recipe
