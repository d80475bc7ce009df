"""Mixtures: by rule, by limits, over training, learned from proxies, and guarded against synthetic text. No torch.

`shares` has natural, temperature and UniMax shares and the nearest ones that keep limits; `repeats` what a repeated token
is worth; `curricula` mixtures that change; `proxies`, `laws` and `learned` the way from proxy runs to a best mixture;
`doremi` the weights of group DRO; `collapse` the guard. SciPy is loaded when a law is fitted.
"""

from lablib.data.mixing.collapse import Alarm, Caps, Diversity, Origin, Verdict, diversity, drift, guard, made_from
from lablib.data.mixing.curricula import WindowOrder, anneal, between, check_epochs, ramp
from lablib.data.mixing.doremi import DomainWeights
from lablib.data.mixing.shares import constrain, epochs, most_tokens, natural, temperature, unimax
from lablib.plan.repeats import effective_by_domain, effective_tokens, value_of_an_epoch

__all__ = [
    "Alarm",
    "Caps",
    "Diversity",
    "DomainWeights",
    "Origin",
    "Verdict",
    "WindowOrder",
    "anneal",
    "between",
    "check_epochs",
    "constrain",
    "diversity",
    "drift",
    "effective_by_domain",
    "effective_tokens",
    "epochs",
    "guard",
    "made_from",
    "most_tokens",
    "natural",
    "ramp",
    "temperature",
    "unimax",
    "value_of_an_epoch",
]
