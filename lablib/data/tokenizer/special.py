"""Tokens that no text can produce, and the chat template that puts them in.

Three ids end things. ``<|endoftext|>`` ends a document in pretraining. ``<|im_end|>`` ends a turn and is the `eos` of
generation, because a chat model must stop there. ``<|pad|>`` fills batches and is nothing else: padding with an end token
would teach a model, or its loss mask, never to end.
"""

from __future__ import annotations

SEPARATOR, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (
    *(SEPARATOR, TURN_START, TURN_END, PAD, "<think>", "</think>", "<tool_call>", "</tool_call>"),
    *(f"<|reserved_{number}|>" for number in range(8)),
)
"""Ids 0 to 15, in this order; the reserved ones are for what you add later without growing the embedding."""
SMALLEST = 256 + len(SPECIAL)
"""A vocabulary holds every byte and every special token."""
_PLAIN = "replace('<|', '< |') | replace('<think>', '< think>') | replace('</think>', '< /think>')"
_PLAIN += " | replace('<tool_call>', '< tool_call>') | replace('</tool_call>', '< /tool_call>')"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "{{- '<|im_start|>assistant\\n' -}}"
    "{%- generation -%}{{- (message.content | replace('<|', '< |')) + '<|im_end|>' -}}{%- endgeneration -%}"
    "{{- '\\n' -}}"
    "{%- else -%}"
    "{{- '<|im_start|>' + (message.role | "
    + _PLAIN
    + ") + '\\n' + (message.content | "
    + _PLAIN
    + ") + '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML. Marks what the assistant says (and its ``<|im_end|>``) as the tokens to learn from. A special token's spelling
inside a message gets a blank after its ``<``, so that what a user writes cannot end a turn; only the assistant may think
and call tools."""
