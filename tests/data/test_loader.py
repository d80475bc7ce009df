"""The loader: what comes out is what the shards hold, once, in the mixture's shares, for any number of readers."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lablib.data import PackedDataset, shards, tokenizer
from lablib.data.loader import IGNORED, Window
from lablib.specs import Curriculum, LabError, Mixture


@pytest.fixture
def data(prepared: Path) -> Path:
    return prepared / "data"


def one_epoch(dataset: PackedDataset) -> list[Window]:
    return [dataset[i] for i in range(len(dataset))]


@pytest.mark.parametrize("seq_len", [1, 7, 64, 5000])
def test_an_epoch_predicts_every_token_once(data: Path, seq_len: int) -> None:
    """Counted from the raw files: each token but the first of its document, the separator included."""
    dataset = PackedDataset(data, seq_len=seq_len)
    wanted: Counter[int] = Counter()
    for domain in dataset.domains:
        raw = np.fromfile(data / "shards" / f"{domain}.train.bin", "<u2")
        ends = np.load(data / "shards" / f"{domain}.train.idx.npy")
        firsts = np.concatenate([[0], ends[:-1]])
        wanted.update(np.delete(raw, firsts).tolist())
    seen: Counter[int] = Counter()
    for window in one_epoch(dataset):
        seen.update(window.labels[window.labels != IGNORED].tolist())
    assert seen == wanted
    assert sum(dataset.targets.values()) == sum(wanted.values())
    assert dataset.tokens_available == len(one_epoch(dataset)) * seq_len


def test_windows_hold_documents_whole_and_in_order(data: Path, prepared: Path) -> None:
    """Pieces decode to documents of the corpus; positions restart with each; labels stop at its end."""
    dataset, coder = PackedDataset(data, seq_len=600), tokenizer.load(prepared / "tokenizer")
    separator, pad = dataset.manifest["tokenizer"]["separator"], dataset.manifest["tokenizer"]["pad"]
    whole = 0
    for window in one_epoch(dataset):
        for number in np.unique(window.documents[window.documents >= 0]):
            inside = window.documents == number
            tokens = window.tokens[inside]
            assert window.positions[inside].tolist() == list(range(len(tokens)))
            if tokens[-1] == separator and len(tokens) < 600:
                text = coder.decode(tokens[:-1].tolist(), skip_special_tokens=False)
                whole += text.startswith(window.domain)
            assert (tokens[:-1] != separator).all(), "a separator in the middle: documents leaked into each other"
        padding = window.documents < 0
        assert (window.tokens[padding] == pad).all() and (window.tokens[~padding] != pad).all()
        assert len(set(window.documents[padding].tolist())) == padding.sum()
        edges = np.flatnonzero(window.documents[1:] != window.documents[:-1])
        assert (window.labels[edges] == IGNORED).all() and (window.labels[window.labels != IGNORED] >= 0).all()
    short = json.loads((data / "manifest.json").read_text())["shards"]
    assert whole >= next(row["docs"] for row in short if (row["domain"], row["split"]) == ("short", "train"))


def test_shapes_and_types(data: Path) -> None:
    window = PackedDataset(data, seq_len=33)[0]
    for array in (window.tokens, window.positions, window.documents):
        assert array.shape == (34,) and array.dtype == np.int64
    assert window.labels.shape == (33,)


@pytest.mark.parametrize("weights", [{"long": 0.9, "short": 0.1}, {"long": 0.25, "short": 0.75}, {"short": 1.0}])
def test_shares_are_exact_in_tokens(data: Path, weights: dict[str, float]) -> None:
    """Although documents of `long` are some thirty times as long as those of `short`."""
    dataset = PackedDataset(data, Mixture(weights=weights), seq_len=32)
    count = Counter(dataset[i].domain for i in range(1000))
    assert all(abs(count[domain] / 1000 - share) <= 0.01 for domain, share in weights.items())


def test_natural_shares_finish_together(data: Path) -> None:
    dataset = PackedDataset(data, seq_len=32)
    passes = dataset.epochs(dataset.tokens_available)
    assert all(abs(value - 1) < 1e-9 for value in passes.values())


@pytest.mark.parametrize("world", [1, 2, 4])
def test_same_sequence_for_any_number_of_readers(data: Path, world: int) -> None:
    """Each rank opens the data by itself and takes every world-th window of its own."""
    alone = PackedDataset(data, Mixture(weights={"long": 0.6, "short": 0.4}), seq_len=40, seed=3)
    ranks = [
        PackedDataset(data, Mixture(weights={"long": 0.6, "short": 0.4}), seq_len=40, seed=3) for _ in range(world)
    ]
    for index in range(96):
        window = ranks[index % world][index]
        assert (window.tokens == alone[index].tokens).all() and (window.documents == alone[index].documents).all()


def test_resume_is_one_integer(data: Path) -> None:
    """From any cut, a fresh reader continues as the first would have; also from the last window of an epoch on."""
    first = [PackedDataset(data, seq_len=64)[i].tokens for i in range(120)]
    for cut in (1, 13, 64, 119):
        resumed = PackedDataset(data, seq_len=64)
        assert all((resumed[i].tokens == first[i]).all() for i in range(cut, 120))
    other = PackedDataset(data, seq_len=64, seed=1)
    assert any((other[i].tokens != first[i]).any() for i in range(20)), "the seed must matter, or this test is empty"


def test_epochs_reshuffle_and_repeat_exactly(data: Path) -> None:
    dataset = PackedDataset(data, Mixture(weights={"short": 1.0}), seq_len=64)
    size = dataset.tokens_available // 64
    epochs = [[dataset[e * size + i].tokens.tobytes() for i in range(size)] for e in range(3)]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]


def test_too_many_epochs_say_what_to_do(data: Path) -> None:
    mixture = Mixture(weights={"long": 0.5, "short": 0.5}, max_epochs=2)
    dataset = PackedDataset(data, mixture, seq_len=64)
    most = dataset.most_tokens()
    dataset.check_epochs(most)
    with pytest.raises(
        LabError, match=rf"domain short \(share 50\.0%.*more than mixture.max_epochs=2\. Train on at most {most:,}"
    ):
        dataset.check_epochs(most * 1.01)


def test_wrong_inputs_teach(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"mixture\.weights names nothing; this data has long, short"):
        PackedDataset(data, Mixture(weights={"nothing": 1.0}))
    with pytest.raises(LabError, match="only train and heldout"):
        PackedDataset(data, split="test")
    with pytest.raises(LabError, match="seq_len=0"):
        PackedDataset(data, seq_len=0)
    with pytest.raises(LabError, match="not a prepared data folder"):
        PackedDataset(tmp_path)
    with pytest.raises(IndexError):
        PackedDataset(data)[-1]


def test_index_that_disagrees_is_refused(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    with (copy / "shards" / "long.train.bin").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(LabError, match="its index says otherwise"):
        PackedDataset(copy)
    assert shards.whole(data) and not shards.whole(copy)


def test_heldout_is_apart(data: Path) -> None:
    """No training window holds a held-out document."""
    sums = {
        split: {
            json.loads(line)["sha256"]
            for domain in ("long", "short")
            for line in gzip.decompress((data / "shards" / f"{domain}.{split}.docs.jsonl.gz").read_bytes()).splitlines()
        }
        for split in ("train", "heldout")
    }
    assert not sums["train"] & sums["heldout"] and sums["heldout"]
    assert PackedDataset(data, seq_len=64, split="heldout").tokens_available > 0


PLAN = Curriculum.of(
    (64 * 40, Mixture(weights={"short": 0.25, "long": 0.75})), (64 * 20 + 7, Mixture(weights={"short": 1.0})),
    (64 * 40, Mixture(weights={"long": 0.5, "short": 0.5})),
)  # fmt: skip
"""Phases begin at windows 0, 40 and 61, the last of them inside a window."""


class TestCurriculum:
    """Mixtures in order: a pure function of the index, and exact in tokens in every phase."""

    @staticmethod
    def opened(data: Path, plan: Mixture | Curriculum = PLAN) -> PackedDataset:
        return PackedDataset(data, plan, seq_len=64, seed=2)

    def test_every_phase_has_its_shares_and_counts_agree(self, data: Path) -> None:
        dataset = self.opened(data)
        domains = [dataset[index].domain for index in range(101)]
        for (begin, end), phase in zip(((0, 40), (40, 61), (61, 101)), PLAN.phases, strict=True):
            seen = Counter(domains[begin:end])
            assert all(abs(seen[name] - w * (end - begin)) <= 1 for name, w in phase.mixture.weights.items())
        for count in (0, 1, 39, 40, 41, 60, 61, 62, 100, 101):
            seen = Counter(domains[:count])
            assert dataset.read(count) == {name: 64 * seen[name] for name in dataset.domains}

    def test_no_window_is_read_twice_before_all_were_read_once(self, data: Path) -> None:
        dataset = self.opened(data)
        places = [dataset.place(index) for index in range(101)]
        for name in dataset.domains:
            assert [number for domain, number in places if domain == name] == list(
                range(sum(d == name for d, _ in places))
            )

    @pytest.mark.parametrize("boundary", [40, 61])
    @pytest.mark.parametrize("world", [1, 2, 4])
    def test_a_cut_at_a_boundary_changes_nothing(self, data: Path, boundary: int, world: int) -> None:
        """n − 1, n and n + 1, each continued by fresh readers of every world size."""
        whole = self.opened(data)
        uncut = [whole[index].tokens for index in range(boundary + 24)]
        for cut in (boundary - 1, boundary, boundary + 1):
            ranks = [self.opened(data) for _ in range(world)]
            assert all((ranks[i % world][i].tokens == uncut[i]).all() for i in range(cut, boundary + 24))

    def test_one_phase_is_the_mixture_itself(self, data: Path) -> None:
        mixture = Mixture(weights={"short": 0.3, "long": 0.7})
        plain, phased = self.opened(data, mixture), self.opened(data, Curriculum.of((64 * 50, mixture)))
        assert all((plain[i].tokens == phased[i].tokens).all() for i in range(80))

    def test_the_order_of_weights_does_not_matter(self, data: Path) -> None:
        """One recipe has one hash whatever order its weights are written in, so it must have one data order."""
        turned = Curriculum(phases=tuple(p.replace(mixture=p.mixture.replace(weights=dict(reversed(p.mixture.weights.items())))) for p in PLAN.phases))  # fmt: skip
        first, second = self.opened(data), self.opened(data, turned)
        assert turned.content_hash == PLAN.content_hash and all(first.place(i) == second.place(i) for i in range(101))

    def test_epochs_are_those_of_all_phases_under_the_strictest_limit(self, data: Path) -> None:
        strict = Curriculum(phases=(*PLAN.phases[:2], PLAN.phases[2].replace(mixture=PLAN.phases[2].mixture.replace(max_epochs=0.01))))  # fmt: skip
        dataset = self.opened(data, strict)
        wanted = {name: tokens / dataset.tokens_by_domain[name] for name, tokens in PLAN.domain_tokens().items()}
        assert dataset.epochs(PLAN.tokens) == pytest.approx(wanted)
        with pytest.raises(LabError, match=r"max_epochs=0\.01"):
            dataset.check_epochs(PLAN.tokens)
        self.opened(data).check_epochs(PLAN.tokens)
        with pytest.raises(LabError, match="names nothing"):
            self.opened(data, Curriculum.of((64, Mixture(weights={"nothing": 1.0}))))
