"""Where it all came from: hashes, code, versions, hardware, seeds, inputs, prices."""

from __future__ import annotations

from typing import Any

from lablib.report.markup import Markup, folded, join, table, tag
from lablib.report.record import Record, RunRecord
from lablib.report.section import Section


def _code(text: object) -> Markup:
    return tag("code", text)


def _commit(manifest: dict[str, Any]) -> str:
    found = manifest.get("code") or {}
    if found.get("commit"):
        return found["commit"][:12] + (" with uncommitted changes" if found.get("dirty") else "")
    return f"snapshot {found['snapshot']}, not a git checkout" if found.get("snapshot") else "not a git checkout"


def _hardware(run: RunRecord) -> str:
    facts = run["manifest"].get("hardware") or {}
    memory = facts.get("memory_gib")
    parts = [*facts.get("gpus", []), facts.get("cpu"), f"{facts['cores']} cores" if facts.get("cores") else None]
    return ", ".join(str(part) for part in [*parts, f"{memory:.0f} GiB" if memory else None] if part) or "not recorded"


def _price(run: RunRecord) -> str:
    cluster = run["cluster"] or {}
    if cluster.get("price_per_gpu_hour") is None:
        return "no price registered"
    return f"${cluster['price_per_gpu_hour']:g} an accelerator-hour; {cluster.get('price_source') or 'source not recorded'}"


def _plain(value: Any) -> str:
    """A fact of ``ran``, or several of one thing."""
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(run: RunRecord) -> Markup:
    manifest = run["manifest"]
    notes = manifest.get("notes") or {}
    rows = [
        ("run", _code(run["id"])),
        ("recipe, experiment", join([_code(run["recipe_hash"]), " ", _code(run["science_hash"])])),
        ("code", _commit(manifest)),
        ("seed", run["recipe"]["seed"]),
        ("hardware", _hardware(run)),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items())
            or "not recorded",
        ),
        ("price", _price(run)),
        *((f"input {name}", _code(sha256)) for name, sha256 in (manifest.get("inputs") or {}).items()),
        *(
            (f"made {item['name']}", join([_code(item["sha256"]), f" {item['bytes'] / 2**20:.1f} MiB"]))
            for item in run["artefacts"]
        ),
        *((f"ran: {name}", _plain(value)) for name, value in (notes.get("ran") or {}).items()),
        *((f"note: {name}", str(value)[:300]) for name, value in notes.items() if name != "ran"),
    ]
    return folded(f"{run['name']} · {run['id']}", table(("what", "value"), rows))


def provenance(record: Record) -> Section:
    """One folded table a run; every number of the report resolves to one of these hashes."""
    words = tag(
        "p",
        "The same facts are in this file as JSON (element ",
        tag("code", "lab-record"),
        "), and in each run's folder.",
    )
    return Section("provenance", "Provenance", join([words, *map(_facts, record["runs"])]))
