"""What counts as the answer in a completion: strict, so that saying everything is not saying the right thing."""

from __future__ import annotations

LONGEST = 4000
"""Characters; a longer answer is wrong without being looked at."""


def extract_answer(completion: object, is_chat: bool) -> str:
    """The answer in a completion: all of a chat turn, or the first line of a plain continuation.

    A chat turn may think first: what stands before the last ``</think>`` is left out. Nothing is searched for inside
    the text, because a search would reward listing every possible answer. Anything but text is an empty answer.
    """
    if not isinstance(completion, str):
        return ""
    text = completion.rpartition("</think>")[2].strip() if is_chat else completion.strip().partition("\n")[0].strip()
    return text if len(text) <= LONGEST else ""
