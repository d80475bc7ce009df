"""The command line as a newcomer meets it: help that teaches, and one clear message for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lab.__main__ import COMMANDS
from lablib.runs import Run
from lablib.specs import STAGES, Accelerator, Cluster, Parallelism, Prepare, Pretrain


def lab(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lab", *words], capture_output=True, text=True, cwd=cwd, timeout=240)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2, a short message that holds `words`, and no stack trace."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr) < 1000
    for word in words:
        assert word in done.stderr


@pytest.fixture
def folder(tmp_path: Path, home: Path, runs: Path) -> Path:
    return tmp_path


def test_help_lists_every_command_in_one_screen() -> None:
    done = lab("--help")
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    module = import_module(f"lab.commands.{name}")
    done = lab(name, "--help")
    assert done.returncode == 0
    assert module.__doc__.splitlines()[0] in done.stdout


def test_a_missing_recipe_file(folder: Path) -> None:
    refused(lab("estimate", str(folder / "no.toml")), "no.toml", "recipe")


def test_a_file_that_is_no_recipe(folder: Path) -> None:
    (folder / "r.toml").write_text("this is not toml")
    refused(lab("estimate", str(folder / "r.toml")), "cannot be read")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tokens", '"-4B"', ["tokens", "greater than 0"]),
        ("tokens", '"a few"', ["tokens", "15T"]),
        ("model", '"llama-9-8b"', ["llama-3-8b"]),
        ("lerning_rate", "1.0", ["lerning_rate", "no such field"]),
        ("name", '"../../etc"', ["name"]),
        ("seq_len", "10000000", ["seq_len", "max_seq_len"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_remedy(
    folder: Path, field: str, value: str, words: list[str]
) -> None:
    fields = {"stage": '"pretrain"', "model": '"qwen3-0.6b"', "tokens": '"1B"', field: value}
    (folder / "r.toml").write_text("\n".join(f"{key} = {text}" for key, text in fields.items()))
    refused(lab("estimate", str(folder / "r.toml"), "--accelerator", "h100-sxm"), *words)


def test_an_unknown_stage_lists_the_known_ones(folder: Path) -> None:
    (folder / "r.json").write_text('{"stage": "pretraining"}')
    refused(lab("estimate", str(folder / "r.json")), "pretraining", ", ".join(STAGES))


def test_tensor_parallelism_that_does_not_divide_the_heads_is_refused_before_it_is_queued(folder: Path) -> None:
    text = 'stage = "pretrain"\nmodel = "qwen3-0.6b"\ntokens = "1B"\n[parallelism]\ntp = 3\n'
    (folder / "r.toml").write_text(text)
    refused(lab("submit", str(folder / "r.toml")), "tp=3", "heads")
    assert json.loads(lab("jobs", "--json").stdout) == []


def test_a_recipe_that_does_not_fit_this_machine_is_refused_with_a_remedy(folder: Path, home: Path) -> None:
    small = Accelerator(name="toy", kind="cpu", memory_gib=1, bandwidth_gb_s=10, measured_tflops={"fp32": 0.05})
    home.mkdir(parents=True)
    Cluster(name="local", accelerator=small, gpus_per_node=1).save(home / "local-cluster.json")
    Pretrain(model="llama-3.1-8b", tokens="1B", precision="fp32").save(folder / "r.toml")
    refused(lab("submit", str(folder / "r.toml")), "needs", "GiB")
    assert json.loads(lab("jobs", "--json").stdout) == []


def test_an_unknown_accelerator_lists_the_nearest(folder: Path) -> None:
    Pretrain(model="qwen3-0.6b", tokens="1B").save(folder / "r.toml")
    refused(lab("estimate", str(folder / "r.toml"), "--accelerator", "h1000"), "h100-sxm")


def test_a_run_that_does_not_exist(folder: Path) -> None:
    for command in ("watch", "stop", "resume", "report"):
        refused(lab(command, "nothing-here"), "nothing-here", "lab jobs")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("extend", "RUN", "--time", "zzz"), ["time", "zzz", "10 min"]),
        (("extend", "RUN", "--max-dollars", "abc"), ["abc", "$50k"]),
        (("submit", "RECIPE", "--max-dollars", "abc"), ["--max-dollars", "abc", "$50k"]),
        (("tour", "--budget", "zzz"), ["--budget", "zzz", "10 min"]),
        (("tour", "--price", "zzz"), ["--price", "zzz", "$50k"]),
        (("tour", "--threads", "0"), ["--threads 0", "above 0"]),
    ],
)
def test_an_amount_that_cannot_be_read(folder: Path, words: tuple[str, ...], told: list[str]) -> None:
    recipe = Prepare(corpus=str(folder))
    recipe.save(folder / "r.toml")
    places = {"RUN": str(Run.create(recipe, folder / "runs").path), "RECIPE": str(folder / "r.toml")}
    refused(lab(*(places.get(word, word) for word in words)), *told)


def test_a_machine_that_was_not_measured_says_how(folder: Path) -> None:
    Pretrain(model="qwen3-0.6b", tokens="1B").save(folder / "r.toml")
    refused(lab("estimate", str(folder / "r.toml")), "lab calibrate")


def test_an_estimate_as_json_for_scripts(folder: Path) -> None:
    recipe = Pretrain(
        model="llama-3.1-8b", tokens="1T", seq_len=8192, batch_tokens="4M", parallelism=Parallelism(dp_shard=64)
    )
    recipe.save(folder / "r.toml")
    done = lab("estimate", str(folder / "r.toml"), "--accelerator", "h100-sxm", "--json")
    found = json.loads(done.stdout)
    assert found["params"]["total"] == 8_030_261_248
    assert found["gpu_hours"]["low"] < found["gpu_hours"]["mid"] < found["gpu_hours"]["high"]


def test_an_empty_board_says_what_to_do(folder: Path) -> None:
    done = lab("jobs")
    assert done.returncode == 0 and "lab tour" in done.stdout


def test_a_pipe_that_closes_early_is_no_error(folder: Path) -> None:
    done = subprocess.run(f"{sys.executable} -m lab --help | head -1", shell=True, capture_output=True, text=True)
    assert done.stderr == ""
