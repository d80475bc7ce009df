"""`Container`: an image that processes run in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lablib.specs.base import Spec


class Container(Spec):
    """An image that the job's processes run in."""

    image: str = Field(min_length=1)
    """A path (.sqsh, .sif) or a reference that the runtime pulls."""
    runtime: Literal["pyxis", "apptainer"] = "pyxis"
    mounts: tuple[str, ...] = ()
    """``/host/path:/inside`` pairs."""

    def within(self, command: list[str]) -> list[str]:
        """The command inside the image, for apptainer; pyxis is an option of srun instead."""
        if self.runtime == "pyxis":
            return command
        mounts = [word for pair in self.mounts for word in ("--bind", pair)]
        return ["apptainer", "exec", "--nv", *mounts, self.image, *command]
