"""Group-relative policy optimisation (arXiv 2402.03300) against a verifier's reward."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lablib.data.tasks import Item, Verdict, Verifier, split_items
from lablib.models.chat import encode_prompt
from lablib.posttrain import rows, settings, trainer
from lablib.runs import Recorder, jsonl
from lablib.specs import GRPO, LabError

CONVENTIONS = {
    "scale_rewards": "group",  # advantage = (r − mean) / (std with ddof 1 + 1e-4) over the completions of one prompt
    "loss_type": "dapo",  # mean over all completion tokens of the batch (arXiv 2503.14476 §3.3): no length bias
    "importance_sampling_level": "token",  # one probability ratio a token, clipped to 1 ± epsilon
    "vllm_importance_sampling_mode": "sequence_mask",  # only with vLLM as the sampler
    "vllm_importance_sampling_correction": True,
    "num_iterations": 1,
    "mask_truncated_completions": False,
}
"""GRPO is not one formula: eight systems normalise advantages in six ways, so ours is written out and recorded."""
ROLLOUTS = "rollouts.jsonl"
PATIENCE = 10
"""Steps without any reward after which the run says so."""


def grpo(recipe: GRPO, run: Recorder) -> None:
    """Sample groups, reward what the verifier accepts, and write the artefact "model". Raises `LabError`."""
    from datasets import Dataset

    model, tokenizer = trainer.begin(recipe, run)
    items = fitting_items(recipe, tokenizer, run)
    config = config_of(recipe, run)
    run.note(grpo={**CONVENTIONS, "on_policy": recipe.batch_size == recipe.prompts_per_step * recipe.group_size})
    with Verifier(recipe.task) as verifier:
        verifier.check(items[:8])
        reward = Reward(verifier, items, recipe.group_size, run)
        made = recording_trainer(reward)(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list([_row(item, place) for place, item in enumerate(items)]),
            processing_class=tokenizer,
            peft_config=trainer.adapter(recipe.lora),
        )
        trainer.finish(made, tokenizer, run)


def config_of(recipe: GRPO, run: Recorder) -> Any:
    """TRL's config. Raises `LabError` where the batch does not divide the completions of a step."""
    from trl import GRPOConfig

    sampled = recipe.prompts_per_step * recipe.group_size
    if sampled % recipe.batch_size:
        raise LabError(f"batch_size={recipe.batch_size} does not divide prompts_per_step×group_size={sampled}; set batch_size={sampled} for one update on what was just sampled")  # fmt: skip
    own = {
        **CONVENTIONS,
        "num_generations": recipe.group_size,
        "generation_batch_size": sampled,
        "max_completion_length": recipe.max_new_tokens,
        "temperature": recipe.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "beta": recipe.beta,
        "epsilon": recipe.epsilon,
        "generation_kwargs": {"use_cache": True},  # a pretrained model's folder may turn it off
    }
    return settings.build(GRPOConfig, settings.common(recipe, run, "constant_with_warmup") | own)


def fitting_items(recipe: GRPO, tokenizer: Any, run: Recorder) -> list[Item]:
    """The task's train items whose prompt and completion fit `seq_len`; the others are counted."""
    items = split_items(recipe.task, "train")
    room = recipe.seq_len - recipe.max_new_tokens
    kept = [item for item in items if len(encode_prompt(tokenizer, item.prompt, item.is_chat)) <= room]
    rows.report_rows(run, len(kept), len(items) - len(kept), recipe.seq_len)
    return kept


def _row(item: Item, place: int) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": item.prompt}] if item.is_chat else item.prompt, "place": place}


class Reward:
    """TRL's reward function: a verifier's verdicts, remembered until their advantages are known."""

    __name__ = "verifier"

    def __init__(self, verifier: Verifier, items: list[Item], group_size: int, run: Recorder) -> None:
        """`items` in the order of the data set's ``place`` column."""
        self.verifier, self.items, self.group_size, self.run = verifier, items, group_size, run
        self._last: tuple[list[Item], list[str], list[Verdict]] = ([], [], [])
        self._unrewarded: int | None = 0

    def __call__(self, prompts: list[Any], completions: list[Any], place: list[int], **extras: Any) -> list[float | None]:  # fmt: skip
        """A reward for each completion: 1, 0, or None (no advantage) where the verifier itself is broken."""
        asked = [self.items[number] for number in place]
        said = [text if isinstance(text, str) else text[0]["content"] for text in completions]
        verdicts = self.verifier.score(asked, said)
        self._last = (asked, said, verdicts)
        extras["log_metric"]("verifier_errors", sum(verdict.error is not None for verdict in verdicts) / len(verdicts))
        self._watch(extras["trainer_state"].global_step, any(verdict.score for verdict in verdicts))
        return [verdict.score for verdict in verdicts]

    def _watch(self, step: int, is_rewarded: bool) -> None:
        """Say once, early, that a run cannot learn: without any reward every advantage is zero."""
        if is_rewarded:
            self._unrewarded = None
        elif self._unrewarded is not None:
            self._unrewarded += 1
            if self._unrewarded == PATIENCE:
                self.run.event("warning", text=f"No completion was right in the first {PATIENCE} samplings (step {step}), so nothing can be learnt yet: warm up with SFT, or make the task easier")  # fmt: skip

    def record(self, step: int, advantages: list[float]) -> None:
        """Append one row a prompt to ``rollouts.jsonl``: its completions with answer, score, error and advantage."""
        asked, said, verdicts = self._last
        if not self.run.is_main:
            return
        for start in range(0, len(asked), self.group_size):
            group = slice(start, start + self.group_size)
            tried = [
                {"text": text, **asdict(verdict), "advantage": advantage}
                for text, verdict, advantage in zip(said[group], verdicts[group], advantages[group], strict=True)
            ]
            item = asked[start]
            row = {"step": step, "prompt": item.prompt, "right": item.answer, "completions": tried}
            jsonl.append(self.run.path / ROLLOUTS, row)


def recording_trainer(reward: Reward) -> type:
    """TRL's trainer, which also hands the advantages that it computed to `reward`."""
    from trl import GRPOTrainer

    class Recording(GRPOTrainer):
        """Adds nothing to the algorithm."""

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            scored: dict[str, Any] = super()._generate_and_score_completions(inputs)
            reward.record(self.state.global_step + 1, scored["advantages"].tolist())
            return scored

    return Recording
