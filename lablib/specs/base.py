"""`Spec`: a frozen value that validates, hashes and round-trips through JSON and TOML."""

from __future__ import annotations

import hashlib
import html
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lablib.specs.errors import LabError, teach


def digest(value: object) -> str:
    """16 hex digits of the SHA-256 of a value's canonical JSON (sorted keys, no spaces); file names may be no UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Replace a text file in one step: a reader sees the old content or the new, never a part.

    What need not survive a power failure is not `durable`: a file server is spared the wait for its disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Spec(BaseModel):
    """Frozen pydantic model; unknown fields are errors, so that no key goes unread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        """Validate `data`; raises `LabError` with a line for each wrong field."""
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise teach(error, type(self).__name__) from None

    @property
    def content_hash(self) -> str:
        """16 hex digits that change exactly when a field's value does."""
        return digest(self.model_dump(mode="json"))

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})

    def to_json(self) -> str:
        """Indented JSON with every field."""
        return self.model_dump_json(indent=2)

    def to_toml(self) -> str:
        """TOML with every field that is set (TOML has no null, so None is left out)."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; raises `LabError`."""
        return cls._from_mapping(json.loads, text, "JSON")

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read what `to_toml` wrote; raises `LabError`."""
        return cls._from_mapping(tomllib.loads, text, "TOML")

    @classmethod
    def _from_mapping(cls, load: Any, text: str, form: str) -> Self:
        try:
            data = load(text)
        except ValueError as error:
            raise LabError(f"This is not {form}: {error}") from None
        if not isinstance(data, dict):
            raise LabError(f"A {cls.__name__} is a {form} table, not a {type(data).__name__}")
        return cls(**data)

    def save(self, path: str | Path) -> Path:
        """Write to `path` (.json or .toml) atomically."""
        path = Path(path)
        write_atomic(path, self.to_toml() if path.suffix == ".toml" else self.to_json())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a .json or .toml file; raises `LabError` where it is missing or wrong."""
        path = Path(path)
        if not path.is_file():
            raise LabError(f"There is no file {path}; give the path of a .toml or .json {cls.__name__}")
        text = path.read_text(encoding="utf-8")
        return cls.from_toml(text) if path.suffix == ".toml" else cls.from_json(text)

    def summary(self) -> dict[str, str]:
        """The fields that differ from their defaults, as text: what a compact rendering shows."""
        fields = type(self).model_fields
        return {name: str(getattr(self, name)) for name in fields if getattr(self, name) != fields[name].default}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(k)}</th><td style='text-align:left'>{html.escape(v)}</td></tr>"
            for k, v in self.summary().items()
        )
        return f"<details open><summary><b>{type(self).__name__}</b> <code>{self.content_hash}</code></summary><table>{rows}</table></details>"
