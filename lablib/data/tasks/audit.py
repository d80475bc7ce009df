"""Which reasoning-gym scorers must not see model output, found by reading all 106 and running them on junk."""

from __future__ import annotations

from lablib.specs import LabError

_RUNS_CODE = "its scorer evaluates the answer as Python code"
_NO_SCORE = "its scorer does not give full credit to its own answer"
_ANYTHING = "its scorer gives full credit to junk"

REFUSED: dict[str, str] = {
    "binary_matrix": _RUNS_CODE,
    "countdown": _RUNS_CODE,
    "intermediate_integration": _RUNS_CODE,
    "n_queens": _RUNS_CODE,
    "polynomial_multiplication": _RUNS_CODE,
    "puzzle24": _RUNS_CODE,
    "simple_integration": _RUNS_CODE,
    "spiral_matrix": _RUNS_CODE,
    "string_insertion": _RUNS_CODE,
    "boxnet": _NO_SCORE,
    "graph_color": _NO_SCORE,
    "propositional_logic": _NO_SCORE,
    "rubiks_cube": _NO_SCORE,
    "rush_hour": _NO_SCORE,
    "coin_flip": _ANYTHING,
    "complex_arithmetic": _ANYTHING,
    "game_of_life_halting": _ANYTHING,
    "composite": "it is a mixture of other generators; name those as tasks of their own",
}
"""reasoning-gym 0.1.25: ``eval`` or ``sympy.parse_expr`` on the answer; ``nan`` passes for every complex number, ``0``
for a small probability, and any text at all for the halting game."""


def check_generator(name: str) -> None:
    """Raises `LabError` for a generator that does not exist or whose scorer is not safe or not sound."""
    from reasoning_gym.factory import DATASETS

    if name in REFUSED:
        raise LabError(f"generator={name!r} is not offered: {REFUSED[name]}. Choose another, such as gcd or chain_sum")
    if name not in DATASETS:
        near = sorted(found for found in DATASETS if name.split("_")[0] in found and found not in REFUSED)
        hint = f"did you mean {', '.join(near)}?" if near else f"{len(DATASETS) - len(REFUSED)} exist, such as gcd, aiw or chain_sum"  # fmt: skip
        raise LabError(f"generator={name!r} does not exist in reasoning-gym; {hint}")
