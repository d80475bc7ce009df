"""How fast each format of file is read, and that memory does not grow with it.

    python -m bench.data.sources [--mb 10] [--forms jsonl,warc.gz] [--json]

Text: the standard library's sources. Each format is written once with `--mb` of it and once with four times as much, and
read by `Files` in a process of its own. Speed is MB of text per CPU-second of the larger file, beside a plain loop of
the standard library over the same JSON lines; memory is the most that the process held, less what it held before.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lablib.data.documents import Document
from lablib.data.sources.files import Files
from lablib.data.sources.machine import STDLIB

TIMES = 4
"""How much larger the second file is."""
FORMS = ("jsonl", "jsonl.gz", "jsonl.bz2", "jsonl.xz", "jsonl.zst", "parquet", "tar", "warc.gz", "wet.gz")


def texts(megabytes: float) -> Iterator[str]:
    """So much of the standard library, again and again, each text with a number before it."""
    left, number = megabytes * 1e6, 0
    while left > 0:
        for document in STDLIB.documents():
            number += 1
            text = f"# {number}\n{document.text}"
            left -= len(text.encode())
            yield text
            if left <= 0:
                return


def record(kind: str, body: bytes, media: str) -> bytes:
    """A WARC record."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://x.example/\r\nWARC-Date: 2024-01-02T03:04:05Z\r\n"
    )
    head += f"WARC-Record-ID: <urn:uuid:0>\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    return gzip.compress(head.encode() + body + b"\r\n\r\n", 1)


def page(text: str) -> bytes:
    """A response with a page around the text."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;")
    body = f"<html><body><nav><a href='/'>Home</a></nav><main><article><pre>{safe}</pre></article></main></body></html>"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    return record("response", (head + body).encode(), "application/http; msgtype=response")


def write(path: Path, form: str, megabytes: float) -> None:
    """A file of a form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if form == "parquet":
        pq.write_table(pa.table({"text": list(texts(megabytes))}), path, row_group_size=1000)
    elif form == "tar":
        with tarfile.open(path, "w") as archive:
            for number, text in enumerate(texts(megabytes)):
                info = tarfile.TarInfo(f"{number}.py")
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
    elif form == "warc.gz":
        path.write_bytes(b"".join(map(page, texts(megabytes))))
    elif form == "wet.gz":
        path.write_bytes(b"".join(record("conversion", text.encode(), "text/plain") for text in texts(megabytes)))
    else:
        data = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts(megabytes))
        pack = {"gz": lambda d: gzip.compress(d, 1), "bz2": lambda d: bz2.compress(d, 1),
                "xz": lambda d: lzma.compress(d, preset=0), "zst": lambda d: pa.compress(d, codec="zstd", asbytes=True)}  # fmt: skip
        path.write_bytes(pack.get(form.rpartition(".")[2], lambda d: d)(data))


def read(path: Path, plainly: bool) -> dict[str, float]:
    """Read a file in this process: megabytes of text, CPU-seconds, and megabytes of memory that it took."""
    if path.suffix != ".jsonl":
        import pyarrow.parquet  # noqa: F401
        import resiliparse.extract.html2text  # noqa: F401
    before, began, size = peak(), time.process_time(), 0
    if plainly:
        with path.open(encoding="utf-8") as lines:
            size = sum(len(json.loads(line)["text"].encode()) for line in lines)
    else:
        size = sum(len(one.text.encode()) for one in Files(path).documents() if isinstance(one, Document))
    return {"mb": size / 1e6, "seconds": time.process_time() - began, "memory_mb": peak() - before}


def peak() -> float:
    """The most memory that this program has held, in MB; `getrusage` would count what its parent held before it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def apart(path: Path, plainly: bool = False) -> dict[str, float]:
    """`read` in a process of its own."""
    command = [sys.executable, "-m", "bench.data.sources", "--read", str(path), *(["--plainly"] if plainly else [])]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=10, help="MB of text of the smaller file (default 10)")
    parser.add_argument("--forms", default=",".join(FORMS), help="which, with commas between")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plainly", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, args.plainly)))
        return
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for form in args.forms.split(","):
            small, large = (Path(folder) / f"{name}.{form}" for name in ("small", "large"))
            write(small, form, args.mb)
            write(large, form, args.mb * TIMES)
            show(rows, args.json, form, apart(small), apart(large))
            if form == "jsonl":
                show(rows, args.json, "a plain loop", apart(small, plainly=True), apart(large, plainly=True))
            small.unlink()
            large.unlink()
    if args.json:
        print(json.dumps(rows, indent=1))


def show(rows: list[dict[str, object]], quiet: bool, form: str, one: dict[str, float], more: dict[str, float]) -> None:
    """Keep a row, and print it."""
    speed = more["mb"] / more["seconds"]
    rows.append({"form": form, "mb_per_cpu_second": speed, "memory_mb": [one["memory_mb"], more["memory_mb"]]})
    if not quiet:
        print(f"{form:14} {speed:7.1f} MB per CPU-second, memory {one['memory_mb']:5.1f} MB, of {TIMES} times as much {more['memory_mb']:5.1f} MB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
