"""SFT against a hand-written loss and TRL's own masks; resume against the uninterrupted run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_chat import COMMON, LEAP, layout, lines, train_rows
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from lablib.models.chat import encode_chat, prepare_chat
from lablib.models.load import load_pair
from lablib.posttrain import settings, trainer
from lablib.posttrain import sft as stage
from lablib.posttrain.callback import last_checkpoint
from lablib.posttrain.sft import sft
from lablib.runs import Recorder
from lablib.specs import SFT, LabError, LoRA, Parallelism


def recipe(model: Path, **changes: Any) -> SFT:
    return SFT(
        **{
            "model": str(model),
            "data": LEAP,
            "steps": 6,
            "batch_size": 8,
            "learning_rate": 3e-3,
            **layout(8),
            **COMMON,
            **changes,
        }
    )


def test_first_loss_is_the_cross_entropy_of_the_assistants_tokens(tiny: Path, tmp_path: Path) -> None:
    """One batch holds the whole task, so that the first loss is known whatever the order."""
    task = LEAP.replace(train=8)
    run = Recorder.create(tmp_path, recipe(tiny, data=task, steps=1))
    sft(run.recipe, run)  # type: ignore[arg-type]
    model, tokenizer = load_pair(tiny)
    prepare_chat(tokenizer)
    model.requires_grad_(False)
    total, count = 0.0, 0
    for chat in stage.conversations(task, run):
        ids, mask = encode_chat(tokenizer, chat)
        logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(float(logp[i - 1, token]) for i, (token, keep) in enumerate(zip(ids, mask, strict=True)) if keep)
        count += sum(mask)
    assert train_rows(run.path)[0]["loss"] == pytest.approx(total / count, rel=1e-4)


def test_labels_equal_those_of_trls_own_assistant_only_loss(tiny: Path, tmp_path: Path) -> None:
    run = Recorder.create(tmp_path, recipe(tiny))
    tokenizer = prepare_chat(AutoTokenizer.from_pretrained(tiny))
    chats = stage.conversations(LEAP.replace(train=12), run)
    ours = stage.encode(tokenizer, chats, 160, run)
    config = SFTConfig(
        output_dir=str(tmp_path),
        assistant_only_loss=True,
        use_cpu=True,
        bf16=False,
        report_to=[],
        shuffle_dataset=False,
        max_length=160,
    )
    peer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny),
        config,
        train_dataset=Dataset.from_list([{"messages": chat} for chat in chats]),
        processing_class=tokenizer,
    )
    assert [row["labels"] for row in ours] == list(peer.train_dataset["labels"])
    assert [row["input_ids"] for row in ours] == list(peer.train_dataset["input_ids"])


def test_rows_that_are_too_long_are_counted_and_none_left_is_an_error(tiny: Path, tmp_path: Path) -> None:
    run = Recorder.create(tmp_path, recipe(tiny))
    tokenizer = prepare_chat(AutoTokenizer.from_pretrained(tiny))
    chats = stage.conversations(LEAP, run)
    lengths = [len(encode_chat(tokenizer, chat)[0]) for chat in chats]
    limit = sorted(lengths)[len(lengths) // 2]
    kept = stage.encode(tokenizer, chats, limit, run)
    counted = json.loads((run.path / "manifest.json").read_text())["notes"]["rows"]
    assert counted == {"kept": len(kept), "too_long": sum(length > limit for length in lengths)} and counted["too_long"]
    with pytest.raises(LabError, match="raise seq_len"):
        stage.encode(tokenizer, chats, 5, run)


def test_training_lowers_the_loss_and_the_model_folder_is_plain(tiny: Path, tmp_path: Path) -> None:
    run = Recorder.create(tmp_path, recipe(tiny, steps=25))
    sft(run.recipe, run)  # type: ignore[arg-type]
    rows = train_rows(run.path)
    assert rows[-1]["loss"] < rows[0]["loss"] / 2 and {"lr", "grad_norm", "tokens", "step_seconds"} <= set(rows[0])
    model = AutoModelForCausalLM.from_pretrained(run.path / "model")
    tokenizer = AutoTokenizer.from_pretrained(run.path / "model")
    assert tokenizer.eos_token == "<|im_end|>" and model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not list((run.path / "model").glob("*.bin")) and "generation" in tokenizer.chat_template


def test_a_stopped_run_resumes_as_if_it_had_not_been(tiny: Path, tmp_path: Path) -> None:
    whole = Recorder.create(tmp_path, recipe(tiny, checkpoint_every=2))
    sft(whole.recipe, whole)  # type: ignore[arg-type]
    half = Recorder.create(tmp_path, recipe(tiny, checkpoint_every=2))
    progress = half.progress

    def interrupt(done: float, total: float, unit: str = "steps") -> None:
        progress(done, total, unit)
        if done == 3:
            half._stop.set()

    half.progress = interrupt  # type: ignore[method-assign]
    sft(half.recipe, half)  # type: ignore[arg-type]
    assert not (half.path / "model").exists() and len(train_rows(half.path)) == 3
    (half.path / "checkpoints" / "checkpoint-5").mkdir()  # what a kill in the middle of a save leaves
    again = Recorder(half.path)
    sft(again.recipe, again)  # type: ignore[arg-type]
    assert any(row["kind"] == "resumed" and row["at_step"] == 3 for row in lines(half.path / "events.jsonl"))
    first, second = ([row["loss"] for row in train_rows(run.path)] for run in (whole, half))
    assert second == pytest.approx(first, abs=1e-6) and len(second) == 6
    one, two = (AutoModelForCausalLM.from_pretrained(run.path / "model").state_dict() for run in (whole, half))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for step, is_whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if is_whole:
            (folder / "complete").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists() and last_checkpoint(tmp_path / "none") is None


def test_a_merged_adapter_is_the_trained_model_and_a_wrong_merge_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = recipe(tiny, steps=4, lora=LoRA(rank=4, alpha=8), learning_rate=1e-2)
    run = Recorder.create(tmp_path, adapted)
    sft(adapted, run)
    assert json.loads((run.path / "manifest.json").read_text())["notes"]["merge_change"] < 1e-5
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tiny, run.path / "model"))
    assert set(before) == set(after) and any(not torch.equal(before[name], after[name]) for name in before)

    from peft import PeftModel

    honest = PeftModel.__getattr__

    def planted(self: PeftModel, name: str) -> Any:
        """Merging that forgets the adapter."""
        return (
            (lambda: AutoModelForCausalLM.from_pretrained(tiny)) if name == "merge_and_unload" else honest(self, name)
        )

    monkeypatch.setattr(PeftModel, "__getattr__", planted)
    with pytest.raises(LabError, match="merged model is not the trained one"):
        sft(adapted, Recorder.create(tmp_path, adapted))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{nonsense", "line 1: this is not JSON"),
        ('{"messages": [{"role": "robot", "content": "hi"}]}', "role among"),
        ('{"messages": "hi"}', "must be a list"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "no assistant message"),
        ("", "has no rows"),
    ],
)
def test_wrong_rows_are_named(tiny: Path, tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(line + "\n")
    wanted = recipe(tiny, data=str(file))
    with pytest.raises(LabError, match=words):
        sft(wanted, Recorder.create(tmp_path, wanted))


def test_conversations_from_a_file_train(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for _ in range(8)))
    wanted = recipe(tiny, data=str(file), steps=2)
    run = Recorder.create(tmp_path, wanted)
    sft(wanted, run)
    assert (run.path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 7}, "not a multiple"),
        ({"parallelism": Parallelism(tp=2)}, "dp_replicate only"),
        ({"precision": "fp8"}, "only the planner does"),
        ({"data": LEAP.replace(fewshot=2)}, "set fewshot=0"),
        ({"model": "no/such/model"}, "smollm2-135m-instruct"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_remedy(
    tiny: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        wanted = recipe(tiny).replace(**changes)
        sft(wanted, Recorder.create(tmp_path, wanted))


def test_a_setting_that_trl_does_not_have_is_an_error() -> None:
    with pytest.raises(LabError, match="has no learning_rat"):
        settings.build(SFTConfig, {"learning_rat": 1.0})


def test_a_loss_that_is_no_number_ends_the_run(tiny: Path, tmp_path: Path) -> None:
    wanted = recipe(tiny, learning_rate=1e30, warmup=0.0)
    with pytest.raises(LabError, match="lower learning_rate"):
        sft(wanted, Recorder.create(tmp_path, wanted))


def test_accumulated_micro_batches_are_one_batch(tiny: Path, tmp_path: Path) -> None:
    """Unequal numbers of target tokens in the micro-batches must not change the mean."""
    found = []
    for size in (8, 2):
        wanted = recipe(tiny, steps=3, **layout(size))
        run = Recorder.create(tmp_path, wanted)
        sft(wanted, run)
        found.append([(row["loss"], row["grad_norm"]) for row in train_rows(run.path)])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert [loss for loss, _ in found[0]] == pytest.approx([loss for loss, _ in found[1]], rel=1e-3)


def test_adapter_settings_follow_the_recipe() -> None:
    made = trainer.adapter(LoRA(rank=3, alpha=7, dropout=0.1, targets=("q_proj",)))
    assert made is not None and (made.r, made.lora_alpha, made.lora_dropout, made.target_modules) == (
        3,
        7,
        0.1,
        {"q_proj"},
    )
    assert trainer.adapter(None) is None
