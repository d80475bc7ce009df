"""Seconds of collectives: which link a group of ranks talks over, and how long a ring or an all-to-all takes on it."""

from __future__ import annotations

from lablib.plan.grid import Number, choose, least, log2, most
from lablib.plan.machine import Machine


def ring(size: Number, members: Number, stride: Number, machine: Machine, one_card: bool = False) -> Number:
    """Seconds of an all-gather or reduce-scatter of `size` bytes over `members` ranks that lie `stride` apart.

    (n-1)/n of it crosses each link; a start costs the software's time and a hop for every doubling of the members.
    """
    whole = size * (members - 1) / members / machine.link(members, stride, one_card) + start(members, stride, machine)
    return choose(members > 1, whole, 0.0)


def all_to_all(size: Number, members: Number, stride: Number, machine: Machine, copies: float = 1.0, once: bool = False) -> Number:  # fmt: skip
    """Seconds until every rank has sent its `size` bytes evenly to all members: what leaves the scale-up domain goes
    through the rank's own network card, the rest over the scale-up link beside it.

    Where `size` holds `copies` of each token and `once` is set, a token goes to each domain once for all its copies
    there: 1 - (1 - 1/d)^copies of the d domains on average.
    """
    inside = least(members, most(1, machine.domain // stride))
    near = size * (inside - 1) / members / machine.scaleup
    far = size * (members - inside) / members / machine.network
    if once:
        domains = most(1, members / inside)
        far = far * domains * (1 - (1 - 1 / domains) ** copies) / copies
    return choose(members > 1, most(near, far) + start(members, stride, machine), 0.0)


def point(size: Number, members: Number, stride: Number, machine: Machine) -> Number:
    """Seconds to hand `size` bytes to the next of `members` ranks, where one of them is in another domain."""
    inside = members * stride <= machine.domain
    return size / choose(inside, machine.scaleup, machine.network) + machine.efficiency.latency_seconds


def start(members: Number, stride: Number, machine: Machine) -> Number:
    """Seconds before the first byte: launching the collective, and a network hop for every doubling beyond a domain."""
    domains = most(1, members * stride / machine.domain)
    return machine.efficiency.latency_seconds + machine.hop * log2(domains)
