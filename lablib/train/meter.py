"""What a step cost: speed, memory, the share of a known peak, and what was spent on waiting for data."""

from __future__ import annotations

import math
import time

import torch

from lablib.specs import LabError, memory


class Meter:
    """Times steps alone (evaluation and checkpoints are left out) and averages since the last report."""

    def __init__(
        self, tokens: int, device: torch.device, flops: float = 0.0, peak: float | None = None, ideal: float = math.inf
    ) -> None:
        """`tokens` of a step over all ranks, model `flops` of a step over all ranks, `peak` FLOP/s of all devices, `ideal`
        tokens of the whole run (Chinchilla's 20 a parameter).

        Where `peak` is None no MFU is reported: never a guessed one.
        """
        self.tokens, self.device, self.ideal = tokens, device, ideal
        self.fastest = None if peak is None else flops / peak
        self._seconds, self._waited, self._steps, self._whole, self._begun = 0.0, 0.0, 0, 0.0, 0.0
        self.last_seconds, self.last_waited = 0.0, 0.0
        """Of the last step: all of it, and its wait for data."""

    def start(self) -> None:
        """A step begins."""
        self._begun = time.perf_counter()

    def loaded(self) -> None:
        """The step's batches are there: what went before was waiting for data."""
        self.last_waited = time.perf_counter() - self._begun
        self._waited += self.last_waited

    def stop(self, share: float = 1.0) -> None:
        """A step of this `share` of the usual tokens has ended (its loss has reached the host, so the device is done with it)."""
        self.last_seconds = time.perf_counter() - self._begun
        self._seconds += self.last_seconds
        self._steps += 1
        self._whole += share

    def report(self, read: int = 0) -> dict[str, float]:
        """step_seconds, tokens_per_second, data_wait (share of the step), memory_gib and, with a known peak, mfu, since the
        last report; with known ideal tokens, chinchilla: the `read` tokens over them.

        Raises `LabError` for an MFU above 1: the peak or the count of FLOPs is wrong, and the figure would be a lie.
        """
        seconds, waited, whole = self._seconds / self._steps, self._waited / self._seconds, self._seconds / self._whole
        self._seconds, self._waited, self._steps, self._whole = 0.0, 0.0, 0, 0.0
        values = {
            "step_seconds": seconds,
            "tokens_per_second": self.tokens / whole,
            "data_wait": waited,
            "memory_gib": peak_gib(self.device),
        }
        if math.isfinite(self.ideal):
            values["chinchilla"] = read / self.ideal
        if self.fastest is None:
            return values
        if self.fastest > whole:
            raise LabError(f"MFU {self.fastest / whole:.2f} is above 1: the cluster's peak_tflops is not this machine's; correct it, or leave it out to report none")  # fmt: skip
        return {**values, "mfu": self.fastest / whole}


def peak_gib(device: torch.device) -> float:
    """Most memory so far in GiB: allocated on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return memory.peak_gib()
