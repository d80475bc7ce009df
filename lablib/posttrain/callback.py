"""What a TRL trainer tells the run: metrics, progress, finished checkpoints; and what the run tells it: stop."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lablib.runs import Recorder
from lablib.specs import LabError

NAMES = {
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "num_tokens": "tokens",
    "entropy": "entropy",
    "mean_token_accuracy": "accuracy",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "groups_without_signal",
    "kl": "kl",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "completions_cut",
    "verifier_errors": "verifier_errors",
}
"""TRL's name → the run's name. Both rewards and both log-probabilities of a pair are kept, because a growing margin can
hide that the chosen answer grows less likely too."""
_DONE = "complete"


class RunCallback(TrainerCallback):
    """Connects a trainer to a run."""

    def __init__(self, run: Recorder) -> None:
        """`run` receives rows named as in `NAMES`."""
        self.run, self._clock, self._tokens = run, time.monotonic(), 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of the first step."""
        self._clock, self._tokens = time.monotonic(), float(state.num_input_tokens_seen or 0)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any) -> None:  # fmt: skip
        """One row a logged step. Raises `LabError` where the loss is no longer a number."""
        told = logs or {}
        values: dict[str, Any] = {name: float(told[key]) for key, name in NAMES.items() if key in told}
        if "loss" not in values:
            return
        if not math.isfinite(told["loss"]):
            raise LabError(f"The loss is {told['loss']} at step {state.global_step}; lower learning_rate={args.learning_rate:g} or look at the data")  # fmt: skip
        self.run.log(state.global_step, **values, **self._speed(told.get("num_tokens"), int(args.logging_steps)))

    def _speed(self, tokens: float | None, steps: int) -> dict[str, Any]:
        now = time.monotonic()
        seconds, self._clock = max(now - self._clock, 1e-9), now
        if tokens is None:
            return {"step_seconds": seconds / steps}
        rate, self._tokens = max(0.0, tokens - self._tokens) / seconds, tokens
        return {"step_seconds": seconds / steps, "tokens_per_second": rate}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Progress; and where any rank was asked to stop, have all of them save and end after this step."""
        self.run.progress(state.global_step, args.max_steps)
        if agreed(self.run.stop_requested, args.device):
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as whole: the trainer writes its files one by one, and a kill may fall between them."""
        if self.run.is_main:
            folder = Path(str(args.output_dir)).absolute() / f"checkpoint-{state.global_step}"
            (folder / _DONE).touch()
            self.run.saved(state.global_step, folder)


def agreed(wish: bool, device: torch.device) -> bool:
    """Whether any rank wishes so, the same answer on each: what rank 0 alone knows (the budget) must end all of them, for
    those that go on would wait for its gradients for ever."""
    if not (dist.is_available() and dist.is_initialized()):
        return wish
    wishes = torch.tensor(float(wish), device=device)
    dist.all_reduce(wishes)
    return bool(wishes.item())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; torn ones, which a kill left, are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / _DONE).exists():
            shutil.rmtree(path)
    return next((path for path in reversed(found) if path.exists()), None)
