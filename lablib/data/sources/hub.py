"""A data set of the Hugging Face hub, streamed, or any folder that `datasets` can load: the same code for both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lablib.data.corpus import slug
from lablib.data.documents import Document, Report, Unreadable, silent
from lablib.data.sources import rows
from lablib.data.sources.rows import TEXT_COLUMNS
from lablib.specs import LabError, digest


@dataclass(frozen=True)
class Hub:
    """``hf:<name>[:<config>[:<split>]]``. Scripts from the hub are never run (`datasets` 5 has no way to)."""

    name: str
    config: str = ""
    split: str = "train"
    max_bytes: int | None = None
    """Reading stops after this much text, since a stream's end may be far."""
    download_bytes: int = 0

    @classmethod
    def parse(cls, text: str, max_bytes: int | None = None) -> Hub:
        """Read ``hf:name:config:split``. Raises `LabError` for another form."""
        parts = text.removeprefix("hf:").split(":")
        if not parts[0] or len(parts) > 3:
            raise LabError(
                f"corpus={text!r}: write hf:<data set>, hf:<data set>:<config> or hf:<data set>:<config>:<split>"
            )
        name, config, split = (*parts, "", "")[:3]
        return cls(name, config, split or "train", max_bytes)

    def __str__(self) -> str:
        return f"hf:{self.name}" + (f":{self.config}:{self.split}" if self.config or self.split != "train" else "")

    def unavailable(self) -> str:
        """Says how to install what is missing."""
        try:
            import datasets  # noqa: F401
        except ImportError:
            return "the package `datasets` is missing; install llm-lab[data]"
        return ""

    def fetch(self, report: Report = silent) -> None:
        """Open the stream once, so that a wrong name fails at once. Raises `LabError`."""
        if reason := self.unavailable():
            raise LabError(f"hf:{self.name} cannot be read: {reason}")
        self._column(self._open())

    def fingerprint(self) -> str:
        """Of the names, the revision or files that `datasets` resolved, and the cap."""
        builder = self._builder()
        return digest([self.name, self.split, self.max_bytes, builder.config_id, str(builder.hash)])

    def documents(self) -> Iterator[Document | Unreadable]:
        """Rows in the stream's order, until `max_bytes`; a row's own licence and address go before the data set's."""
        stream = self._open()
        self._column(stream)
        read, domain = 0, slug(self.name.rpartition("/")[2])
        licence = str(stream.info.license or "see the data set's card")
        for number, row in enumerate(stream):
            made = rows.document(row, domain, f"hf:{self.name}/{self.split}#{number}", licence)
            read += len(made.text.encode("utf-8", "replace"))
            if self.max_bytes is not None and read > self.max_bytes:
                return
            yield made

    def _builder(self) -> Any:
        from datasets import load_dataset_builder

        try:
            return load_dataset_builder(self.name, self.config or None)
        except Exception as error:  # the library raises dozens of kinds, from network to parsing
            raise self._cannot(error) from None

    def _open(self) -> Any:
        builder = self._builder()
        try:
            return builder.as_streaming_dataset(split=self.split)
        except Exception as error:  # as above
            raise self._cannot(error) from None

    def _cannot(self, error: Exception) -> LabError:
        return LabError(
            f"hf:{self.name} (config {self.config or 'default'}, split {self.split}) cannot be opened: "
            f"{str(error)[:400]}\nCheck the name and the network; HF_HUB_OFFLINE=1 allows only what is cached"
        )

    def _column(self, stream: Any) -> str:
        names = list(stream.column_names or next(iter(stream), {}))
        for column in TEXT_COLUMNS:
            if column in names:
                return column
        raise LabError(
            f"hf:{self.name} has the columns {names}, and none of {', '.join(TEXT_COLUMNS)} to read text from"
        )
