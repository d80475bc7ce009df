"""Tasks with verifiable answers: deterministic items, disjoint splits, and a scorer that junk cannot break."""

from lablib.data.tasks.audit import REFUSED, check_generator
from lablib.data.tasks.items import Item, Items, most_common_answer, split_items
from lablib.data.tasks.verifier import Verdict, Verifier

__all__ = [
    "REFUSED",
    "Item",
    "Items",
    "Verdict",
    "Verifier",
    "check_generator",
    "most_common_answer",
    "split_items",
]
