"""A run that heals itself: the spike playbook as one object that the training loop asks before, during and after a step."""

from lablib.train.stability.detector import Bounds, Detector
from lablib.train.stability.guard import Guard
from lablib.train.stability.playbook import Rewind, Spike, respond

__all__ = ["Bounds", "Detector", "Guard", "Rewind", "Spike", "respond"]
