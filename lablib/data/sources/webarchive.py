"""Web archives: pages of WARC files reduced to their main content, texts of WET files as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from lablib.data.documents import Document, Unreadable, decode
from lablib.data.sources import streams

PAGES = ("text/html", "application/xhtml+xml")
"""Media types whose main content is extracted; ``text/plain`` is taken as it is, others are set aside."""
LICENCE = "not stated (web page)"
CODECS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "gzip", "br": "brotli", "zstd": "zstd"}
"""HTTP's name of a coding → pyarrow's, whose gzip reads what HTTP calls deflate too."""
_CHUNK = re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n")


def documents(stream: streams.Stream, domain: str, where: str) -> Iterator[Document | Unreadable]:
    """Responses and conversions of an archive, in its order. A page that cannot be decoded is set aside; damage of the
    archive itself ends it, for later records cannot be found."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.conversion
    number = 0
    try:
        for record in ArchiveIterator(stream, record_types=wanted, parse_http=False):
            number += 1
            found = _record(record, domain, f"{where}#{number}")
            if not stream.damage:  # else the record is the one that was cut, and the damage is told once
                yield found
    except streams.DAMAGE as error:
        if not stream.damage:
            yield Unreadable(domain, f"{where}#{number + 1}", f"archive is damaged [{error}]")


def _record(record: Any, domain: str, source: str) -> Document | Unreadable:
    try:
        record.parse_http()
        return _document(record, domain, source)
    except (*streams.DAMAGE, ValueError) as error:
        why = " ".join(str(error).split())[:100]
        return Unreadable(
            domain, source, f"page cannot be decoded [{why}]", record.headers.get("WARC-Target-URI") or ""
        )


def _document(record: Any, domain: str, source: str) -> Document | Unreadable:
    http, url = record.http_headers, record.headers.get("WARC-Target-URI") or ""
    if http is not None and http.status_code != 200:
        return Unreadable(domain, source, f"page was not found or moved [{http.status_code}]", url)
    kind = (record.http_content_type or "text/html").lower() if http is not None else "text/plain"
    if kind not in PAGES and kind != "text/plain":
        return Unreadable(domain, source, f"page is no text [{kind}]", url)
    length = record.content_length
    data = streams.whole(record.reader) if length <= streams.LONGEST else None
    if data is not None and ("Content-Length" not in record.headers or len(data) < length):
        return Unreadable(domain, source, "record is cut short", url)
    for name in ("Transfer-Encoding", "Content-Encoding") if http is not None else ():
        data = _decoded(data, http.get(name) or "")
    if data is None:
        return Unreadable(domain, source, "longer than a document may be", url)
    text = _text(data, kind, record.http_charset if http is not None else "utf-8")
    if text is None:
        return Unreadable(domain, source, "not UTF-8", url)
    time = record.record_date.strftime("%Y-%m-%dT%H:%M:%SZ") if record.record_date else ""
    return Document(domain, source, LICENCE, text, url=url, time=time)


def _decoded(data: bytes | None, codings: str) -> bytes | None:
    """A body without the `codings` of its header, the last one first; None where it is too long. FastWARC would end an
    archive at a wrong one, and take a body that is cut for a whole one. Raises `DAMAGE` or ValueError."""
    for coding in reversed([one.strip().lower() for one in codings.split(",")]):
        if not data or coding in ("", "identity"):
            continue
        data = _joined(data) if coding == "chunked" else _unpacked(data, coding)
    return data


def _unpacked(data: bytes, coding: str) -> bytes | None:
    import pyarrow

    if coding not in CODECS:
        raise ValueError(f"unknown coding {coding}")
    stream = pyarrow.CompressedInputStream(pyarrow.BufferReader(data), CODECS[coding])
    return streams.whole(io.BufferedReader(stream, streams.CHUNK))


def _joined(data: bytes) -> bytes:
    parts, at = list[bytes](), 0
    while head := _CHUNK.match(data, at):
        begin, size = head.end(), int(head[1], 16)
        if not size:
            return b"".join(parts)
        parts.append(data[begin : begin + size])
        at = begin + size + 2
    raise ValueError("no chunks, or the last one is missing")


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
