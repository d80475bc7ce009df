"""Web archives: pages of WARC files reduced to their main content, texts of WET files as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lablib.data.documents import Document, Unreadable, decode
from lablib.data.sources import streams

PAGES = ("text/html", "application/xhtml+xml")
"""Media types whose main content is extracted; ``text/plain`` is taken as it is, others are set aside."""
LICENCE = "not stated (web page)"


def documents(stream: streams.Stream, domain: str, where: str) -> Iterator[Document | Unreadable]:
    """Responses and conversions of an archive. The records' order is kept; damage in one ends the archive, whose later
    records cannot be found."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.conversion
    number = 0
    try:
        for record in ArchiveIterator(stream, record_types=wanted, parse_http=True, auto_decode="all"):
            number += 1
            found = _document(record, domain, f"{where}#{number}")
            if not stream.damage:  # else the record is the one that was cut, and the damage is told once
                yield found
    except streams.DAMAGE as error:
        if not stream.damage:
            yield Unreadable(domain, f"{where}#{number + 1}", f"archive is damaged [{error}]")


def _document(record: Any, domain: str, source: str) -> Document | Unreadable:
    http, url = record.http_headers, record.headers.get("WARC-Target-URI") or ""
    if http is not None and http.status_code != 200:
        return Unreadable(domain, source, f"page was not found or moved [{http.status_code}]", url)
    kind = (record.http_content_type or "text/html").lower() if http is not None else "text/plain"
    if kind not in PAGES and kind != "text/plain":
        return Unreadable(domain, source, f"page is no text [{kind}]", url)
    length = record.content_length
    data = streams.whole(record.reader) if length <= streams.LONGEST else None
    if data is None:
        return Unreadable(domain, source, "longer than a document may be", url)
    encoded = http is not None and (http.get("Content-Encoding") or http.get("Transfer-Encoding"))
    if "Content-Length" not in record.headers or (not encoded and len(data) < length):
        return Unreadable(domain, source, "record is cut short", url)
    text = _text(data, kind, record.http_charset if http is not None else "utf-8")
    if text is None:
        return Unreadable(domain, source, "not UTF-8", url)
    time = record.record_date.strftime("%Y-%m-%dT%H:%M:%SZ") if record.record_date else ""
    return Document(domain, source, LICENCE, text, url=url, time=time)


def _text(data: bytes, kind: str, charset: str | None) -> str | None:
    """None for a WET file's text that is not UTF-8. A page's charset is the one that it states, else UTF-8 where its bytes
    are, else the detected one: the detector alone takes a page with few accents for another of the same bytes."""
    if kind not in PAGES and charset == "utf-8":
        return _utf8(data)
    page = None if charset or b"charset" in data[:1024] else _utf8(data)
    if page is None:
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding

        try:
            page = bytes_to_str(data, charset or detect_encoding(data, from_html_meta=kind in PAGES) or "utf-8")
        except LookupError:  # the server named an encoding that there is not
            page = bytes_to_str(data, "utf-8")
    if kind in PAGES:
        from resiliparse.extract.html2text import extract_plain_text

        page = extract_plain_text(page, main_content=True, alt_texts=False)
    return decode(page.encode("utf-8", "replace"))


def _utf8(data: bytes) -> str | None:
    try:
        data.decode()
    except UnicodeDecodeError:
        return None
    return decode(data)
