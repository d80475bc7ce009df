"""ChatML: how a conversation becomes tokens, and which of those tokens the assistant wrote."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from lablib.specs import LabError

START, END = "<|im_start|>", "<|im_end|>"
Message = dict[str, str]
_PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ],
)


def chatml(system: str = "") -> str:
    """A ChatML template whose ``{% generation %}`` marks the assistant's text and the turn's end, and no more.

    `system` is put first where a conversation brings no system message of its own (as SmolLM2's template does).
    """
    default = f"{START}system\n{system}{END}\n".replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    first = "{%- if loop.first and message['role'] != 'system' -%}{{- '" + default + "' -}}{%- endif -%}"
    return (
        "{%- for message in messages -%}"
        + (first if system else "")
        + "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
        "{%- if message['role'] == 'assistant' -%}"
        "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}"
        "{%- else -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


def prepare_chat(tokenizer: Any) -> Any:
    """Give a tokenizer a trainable ChatML template, ``<|im_end|>`` as end of turn and a pad token of its own.

    A base model's tokenizer gets the plain template; one whose own template renders the same text as ours gets the
    generation markers; one that has markers keeps its template. Returns the same tokenizer. Raises `LabError` where
    the special tokens are missing, or where the template cannot say which tokens the assistant wrote.
    """
    for token in (START, END):
        if token not in tokenizer.get_vocab():
            raise LabError(f"The tokenizer has no {token} token; post-training needs a tokenizer that reserves the ChatML tokens, as `Prepare` makes them")  # fmt: skip
    tokenizer.eos_token = END
    tokenizer.pad_token = _pad_token(tokenizer)
    tokenizer.chat_template = trainable_template(tokenizer)
    for probe in _PROBES:
        encode_chat(tokenizer, probe)
    return tokenizer


def ready_to_answer(tokenizer: Any) -> None:
    """Let a tokenizer build prompts: one without a chat template (a base model's) gets that which it would be tuned with.

    Raises `LabError` as `prepare_chat` does.
    """
    if tokenizer.chat_template is None:
        prepare_chat(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _pad_token(tokenizer: Any) -> str:
    """A pad token that is not the end of a turn: a shared one would take the end of turn out of the loss."""
    for token in (tokenizer.pad_token, "<|pad|>", "<|endoftext|>"):
        if token in tokenizer.get_vocab() and token != END:
            return str(token)
    raise LabError(f"The tokenizer has no pad token besides {END}; add one such as <|pad|>")


def trainable_template(tokenizer: Any) -> str:
    """The tokenizer's template if it has generation markers, else ours where both render the same text.

    Raises `LabError` for another template without markers: its assistant tokens cannot be told from the rest.
    """
    own = tokenizer.chat_template
    if own is None:
        return chatml()
    if re.search(r"\{%-?\s*generation\s*-?%\}", own):
        return str(own)
    ours = chatml(_default_system(tokenizer))
    if all(_render(tokenizer, probe, own) == _render(tokenizer, probe, ours) for probe in _PROBES):
        return ours
    raise LabError(
        "The tokenizer's chat template has no {% generation %} markers and is not ChatML, so the loss cannot be kept to "
        "the assistant's tokens; add the markers around the assistant's content and end of turn"
    )


def _render(tokenizer: Any, messages: list[Message], template: str) -> str:
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))


def _default_system(tokenizer: Any) -> str:
    """The system message that a template adds by itself, or nothing."""
    text = _render(tokenizer, _PROBES[0], tokenizer.chat_template)
    found = re.match(re.escape(f"{START}system\n") + "(.*?)" + re.escape(END), text, flags=re.DOTALL)
    return found[1] if found else ""


def check_content(tokenizer: Any, messages: list[Message]) -> None:
    """Raises `LabError` where a message spells a special token: it would become one, and could forge a turn."""
    special = [token for token in tokenizer.all_special_tokens if token] + [START, END]
    for message in messages:
        found = next((token for token in special if token in message["content"]), None)
        if found:
            raise LabError(f"A {message['role']} message contains the text {found}, which would be read as a special token; remove or escape it")  # fmt: skip


def encode_prompt(tokenizer: Any, prompt: str, is_chat: bool = True) -> list[int]:
    """Token ids of what a model is to continue: a user's turn with the assistant's opened, or the plain text."""
    messages = [{"role": "user", "content": prompt}]
    check_content(tokenizer, messages)
    if not is_chat:
        return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(encoded["input_ids"])


def encode_chat(tokenizer: Any, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """(token ids, whether the assistant wrote each) of a whole conversation, both of length n.

    The mask is proved, not trusted: each masked stretch must decode to one assistant message followed by
    ``<|im_end|>``. Raises `LabError` where it does not (no markers, end of turn outside them, a merge across the edge).
    """
    check_content(tokenizer, messages)
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(encoded["input_ids"]), [bool(bit) for bit in encoded["assistant_masks"]]
    wanted = [message["content"] + END for message in messages if message["role"] == "assistant"]
    if not wanted:
        raise LabError("A conversation has no assistant message, so there is nothing to learn from it")
    found = [_decode(tokenizer, [ids[i] for i, _ in stretch]) for keep, stretch in _stretches(mask) if keep]
    if found != wanted:
        raise LabError(
            f"The loss mask covers {found!r:.200} where the assistant wrote {wanted!r:.200}; the chat template's "
            "{% generation %} block must hold the message and <|im_end|>, and a message must not begin with white space"
        )
    return ids, mask


def _stretches(mask: list[bool]) -> Any:
    return groupby(enumerate(mask), key=lambda item: item[1])


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
