"""The Prepare stage: corpus → tokenizer → shards, each cached by content, with progress and a data card."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lablib.data import cache, card, funnel, generations, provenance, sandbox, selection, shards, tokenizer
from lablib.data.catalogue import sources_of
from lablib.data.contamination import Decontamination
from lablib.data.contamination import Report as Contamination
from lablib.data.corpus import Corpus
from lablib.data.documents import Source, file_sha256, held
from lablib.data.joining import Joining
from lablib.data.owntests import OwnTests
from lablib.data.progress import Progress
from lablib.data.scale import Job, Team, corpora, pieces, sampling, steps
from lablib.data.sources.mail import MAIL
from lablib.runs import Recorder, Stopped
from lablib.specs import Clean, LabError, Prepare, Ref, TokenizerSpec, digest, paths, write_atomic
from lablib.specs.synthetic import Synthetic, Written

SAMPLE = 8_000_000
"""Bytes of text that the tokenizer is trained on; four times as much moved bytes per token by 0.3 % (docs/data.md)."""
VERSION = 3
"""Raised when the same inputs would give other shards or another tokenizer."""


def prepare(recipe: Prepare, run: Recorder) -> None:
    """Make the artefacts ``tokenizer`` (a Hugging Face folder) and ``data`` (shards and manifest) in the run.

    What an earlier run made of the same inputs is reused. A stop request is heeded within seconds, but for what is one call or
    one pass over numbers: a single file's checksum, the decision on near-duplicates, a tokenizer's training and the joining
    of shards; everything finished until then is kept. The work is cut into parts, which `recipe.threads` processes share, and with them the runs that have
    the recipe's other tasks; the artefacts are the same bytes however many there are, and task 0 has them. Raises `LabError` where a source cannot be had or the mixture names a domain that is not there,
    or where synthetic text breaks the recipe's caps.
    """
    try:
        with cache.using(lambda text: run.event("warning", text=text)) as use:
            _mended(recipe, run, use)
    except Stopped:
        run.event("stopping", at="data preparation")


def _mended(recipe: Prepare, run: Recorder, use: cache.Use) -> None:
    """Prepare, and once more where it failed on a product that somebody damaged or removed after it was found whole."""
    try:
        _attempt(recipe, run)
    except Stopped:
        raise
    except Exception as error:
        if not use.mend():
            raise
        run.event(
            "warning", text=f"What was read from the cache is no longer there or whole ({error}); making it again"
        )
        _attempt(recipe, run)


def _attempt(recipe: Prepare, run: Recorder) -> None:
    with Team(recipe.threads, recipe.tasks, recipe.task) as team:
        _prepare(recipe, run, Progress(run), team)


def _prepare(recipe: Prepare, run: Recorder, progress: Progress, team: Team) -> None:
    if recipe.verify and (why := sandbox.available()):
        raise LabError(f"verify: programs cannot be walled off here: {why}")
    sources = _sources(recipe, run)
    _fetch(sources, run, progress)
    built = _refined(_corpus(sources, recipe, run, progress, team), recipe, run, progress, team)
    _check_mixture(recipe, built)
    _check_depth(recipe, built)
    tokens = _tokenizer(recipe, built, run, progress, team)
    progress.kept(tokens)
    run.event("tokenizer", vocab=_vocab(tokens), asked=recipe.vocab)
    key = _key(recipe, built, "shards", [tokenizer.tokenizer_hash(tokens), built.facts])
    if recipe.task == 0 and cache.has("shards", key) and not shards.whole(cache.folder("shards", key)):
        cache.drop("shards", key, "its shards are not those of its manifest")
    parts: list[Path] = []
    if not cache.has("shards", key):
        caps = selection.quotas(built, recipe.max_bytes)
        parts = pieces.make(built, tokens, caps, recipe.heldout, key, team, partial(progress.at, "tokenise"))
    if recipe.task == 0:
        data = cache.made(
            "shards",
            key,
            lambda to: _shards(recipe, built, tokens, to, parts, pieces.encoder(built, tokens, key, team)),
        )
        progress.kept(data)
        for part in parts:
            cache.drop("pieces", part.name)
        _check_caps(recipe, data)
        cache.put(tokens, run.path / "tokenizer")
        cache.put(data, run.path / "data")
        _describe(recipe, run)
        _register(run, built)
    progress.at("tokenise", 1, 1)


def _sources(recipe: Prepare, run: Recorder) -> tuple[Source, ...]:
    """Of all corpora that the recipe names, each once; what another run wrote is verified by checksum."""
    named = [str(run.input(one)) if isinstance(one, Ref) else one for one in recipe.corpora]
    return tuple(dict.fromkeys(source for name in named for source in sources_of(name, recipe.max_bytes)))


def _fetch(sources: tuple[Source, ...], run: Recorder, progress: Progress) -> None:
    total = sum(source.download_bytes for source in sources)
    run.event("fetching", bytes=total, sources=len(sources))
    done = 0
    for source in sources:
        try:
            source.fetch(progress.part("fetch", done, total))
        except LabError:
            if run.stop_requested:  # the same Ctrl-C ended the registry's client
                raise Stopped from None
            raise
        done += source.download_bytes
        if source.download_bytes:
            progress.kept(paths.assets())
        progress.at("fetch", done, total)


def _corpus(sources: tuple[Source, ...], recipe: Prepare, run: Recorder, progress: Progress, team: Team) -> Corpus:
    hub = any(isinstance(one, str) and one.startswith("hf:") for one in recipe.corpora)
    limit = recipe.max_bytes if hub else None
    key = corpora.key(sources, limit, team, recipe.part_bytes, progress.reading)
    folder = corpora.read(sources, key, team, recipe.part_bytes, progress.reading)
    built = Corpus(folder)
    progress.kept(folder)
    run.event("corpus", key=folder.name, hash=built.hash, domains={name: built.bytes(name) for name in built.domains})
    if (samples := folder / "dropped.jsonl").is_file():
        aside = {name: facts["aside"] for name, facts in built.facts["domains"].items() if "aside" in facts}
        run.event("set aside", domains=aside)
        write_atomic(run.folder("dropped") / "0-reading.jsonl", samples.read_text(encoding="utf-8"))
    return built


def _refined(built: Corpus, recipe: Prepare, run: Recorder, progress: Progress, team: Team) -> Corpus:
    """The corpus after the recipe's steps of the funnel, with samples of what each dropped in the run's folder."""
    _check_domains(recipe, built)
    for step in _steps(recipe):
        before, built = built, steps.refine(built, step, team, partial(progress.at, "refine"))
        progress.kept(built.folder)
        counts = funnel.totals(built.funnel[-1])
        run.event("funnel", step=step.name, docs_in=counts.docs_in, docs_out=counts.docs_out, changed=counts.docs_changed, reasons=counts.reasons)  # fmt: skip
        name = f"{len(built.funnel)}-{step.name.replace(' ', '-')}.jsonl"
        for kind in ("dropped", "changed"):
            if (samples := built.folder / f"{kind}.jsonl").is_file():
                write_atomic(run.folder(kind) / name, samples.read_text(encoding="utf-8"))
        if isinstance(step, Decontamination):
            told = steps.contamination(before, step)
            told.save(run.folder("contamination"))
            run.note(contamination=told.text().splitlines())
        if isinstance(step, OwnTests):
            run.event("own tests", domains=step.counts(before))
    if not built.domains:
        lost = ", ".join(f"{row['step']} left {funnel.totals(row).docs_out}" for row in built.funnel)
        raise LabError(f"No document is left ({lost}); loosen the steps, and look at dropped/ in {run.path}")
    return built


def _steps(recipe: Prepare) -> Iterator[steps.Step]:
    if recipe.clean is not None:
        yield _quality(recipe.clean)
    if recipe.dedup is not None:
        from lablib.data.dedup import NearDuplicates

        yield NearDuplicates(recipe.dedup, workers=recipe.threads)
    if recipe.repeats is not None:
        from lablib.data.dedup import RepeatedText

        yield RepeatedText(recipe.repeats)
    if recipe.decontaminate is not None:
        yield Decontamination(recipe.decontaminate, may_fetch=True)
    if recipe.scrub is not None:
        from lablib.data.quality import PersonalData

        yield PersonalData(recipe.scrub)
    if recipe.verify is not None:  # after every edit: what is trained on is what passed
        yield OwnTests(recipe.verify, workers=recipe.threads)
    if recipe.join is not None:
        yield Joining(recipe.join)


def _quality(clean: Clean) -> funnel.Step:
    """The thresholds as a step; a bound on the score has the classifier learned first, from mail with real labels, one on
    profanity has the list of words fetched."""
    from lablib.data.quality import Quality, profanity
    from lablib.data.quality.classifier import learned

    judge = None if clean.min_quality is None else learned(MAIL, "ham")[0]
    return Quality(clean, judge, None if clean.max_profanity is None else profanity.lexicon())


def _check_domains(recipe: Prepare, built: Corpus) -> None:
    for name, spec in (("verify", recipe.verify), ("join", recipe.join)):
        if spec and (unknown := sorted(set(spec.domains) - set(built.domains))):
            raise LabError(f"{name}.domains names {', '.join(unknown)}; corpus {_name(recipe)} has {', '.join(built.domains)}")  # fmt: skip


def _check_mixture(recipe: Prepare, built: Corpus) -> None:
    if unknown := sorted(set(recipe.mixture.weights) - set(built.domains)):
        raise LabError(
            f"mixture.weights names {', '.join(unknown)}; corpus {_name(recipe)} has {', '.join(built.domains)}"
        )


def _name(recipe: Prepare) -> str:
    return "+".join(str(one) if isinstance(one, Ref) else Path(one).name for one in recipe.corpora)


def _check_depth(recipe: Prepare, built: Corpus) -> None:
    """The cap on generations, before anything is tokenised."""
    facts = built.facts["domains"]
    depths = {name: facts[name].get("provenance", {}).get("generation", 0) for name in built.domains}
    if recipe.synthetic and max(depths.values()) > recipe.synthetic.depth:
        deep = ", ".join(f"{name} {depth}" for name, depth in depths.items() if depth > recipe.synthetic.depth)
        raise LabError(f"synthetic.depth={recipe.synthetic.depth}: corpus {_name(recipe)} has text of a deeper generation ({deep}), written by a model that learned from models' text; leave it out, or write it again with a model trained on people's")  # fmt: skip


def _check_caps(recipe: Prepare, data: Path) -> None:
    """The caps on synthetic shares, which are of tokens."""
    caps = recipe.synthetic
    if caps is None:
        return
    found, whole = provenance.verdict(data, caps), provenance.shares(data)
    if found.dropped["document"]:
        raise LabError(f"synthetic.document={caps.document:g}: {found.dropped['document']:,} documents of corpus {_name(recipe)} are synthetic by a greater share; leave them out, or raise the cap")  # fmt: skip
    if found.dropped["corpus"]:
        tokens = sum(one.tokens for one in whole.values())
        share = sum(one.tokens * one.synthetic for one in whole.values()) / tokens
        raise LabError(f"synthetic.corpus={caps.corpus:g}: {share:.1%} of the tokens of corpus {_name(recipe)} are synthetic; add text that people wrote, leave out {found.dropped['corpus']:,} synthetic documents, or raise the cap")  # fmt: skip


def _key(recipe: Prepare, built: Corpus, what: str, by: Any) -> str:
    """Of the experiment, the corpus' content, the tokenizer and this code's version; `max_epochs` and the seed play no part."""
    facts = {"corpus": built.hash, "weights": recipe.mixture.weights, "version": VERSION, "what": what}
    facts["tokenizer"] = by
    return digest({**facts, "vocab": recipe.vocab, "max_bytes": recipe.max_bytes, "heldout": recipe.heldout})


def _tokenizer(recipe: Prepare, built: Corpus, run: Recorder, progress: Progress, team: Team) -> Path:
    """A cached tokenizer folder: trained here, or a copy of the one that the recipe names."""
    if isinstance(recipe.tokenizer, TokenizerSpec):
        spec, key = recipe.tokenizer, _key(recipe, built, "tokenizer", recipe.tokenizer.model_dump())
        if cache.has("tokenizers", key):
            return cache.folder("tokenizers", key)
        drawing = held(partial(progress.at, "tokenizer"))
        drawn = sampling.draw(built, _shares(recipe, built), recipe.heldout, key, team, drawing)
        return team.one(Job("tokenizers", key, lambda to, _: _train(recipe, spec, drawn, to, progress)), drawing)
    found = run.input(recipe.tokenizer)
    files = {name: file_sha256(found / name) for name in tokenizer.FILES if (found / name).is_file()}
    return cache.made("tokenizers", digest(files), lambda to: tokenizer.copy(found, to))


def _train(recipe: Prepare, spec: TokenizerSpec, drawn: list[Path], folder: Path, progress: Progress) -> None:
    progress.at("tokenizer", 0, 1)
    trained = tokenizer.train(sampling.texts(drawn), recipe.vocab, spec)
    tokenizer.save(trained, folder)
    progress.at("tokenizer", 1, 1)


def _shares(recipe: Prepare, built: Corpus) -> dict[str, float]:
    """Bytes of training text of each domain for the tokenizer, in the mixture's proportions (natural ones where it is empty),
    within the recipe's cap."""
    weights = recipe.mixture.weights or {name: built.bytes(name) for name in built.domains}
    total, caps = sum(weights.values()), selection.quotas(built, recipe.max_bytes)
    wanted = {domain: SAMPLE * weight / total for domain, weight in weights.items()}
    return {domain: min(caps[domain] or math.inf, size) for domain, size in wanted.items()}


def _vocab(folder: Path) -> int:
    return int(tokenizer.load(folder).get_vocab_size())


def _shards(
    recipe: Prepare, built: Corpus, tokens: Path, folder: Path, parts: list[Path], encoder: dict[str, Any]
) -> None:
    """The data folder, of the pieces of all parts of the corpus."""
    made = pieces.join(parts, built.domains, folder / "shards")
    loaded = tokenizer.load(tokens)
    ends = tokenizer.end_and_pad(loaded, tokens)
    facts = {
        "vocab": loaded.get_vocab_size(),
        "sha256": file_sha256(tokens / "tokenizer.json"),
        "hash": tokenizer.tokenizer_hash(tokens),
        "separator": ends[0],
        "pad": ends[1],
        "encoder": encoder,
    }
    manifest = _manifest(recipe, built, made, facts)
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))


def _manifest(recipe: Prepare, built: Corpus, made: list[shards.Shard], facts: dict[str, Any]) -> dict[str, Any]:
    """The manifest: what is in the shards, where it came from, under which licences, and what was left out."""
    return {
        "version": VERSION,
        "corpus": {"name": _name(recipe), "hash": built.hash},
        "recipe": {"vocab": recipe.vocab, "max_bytes": recipe.max_bytes, "heldout": recipe.heldout},
        "mixture": recipe.mixture.weights,
        "tokenizer": facts,
        "shards": [asdict(shard) for shard in made],
        "domains": built.facts["domains"],
        "funnel": built.funnel,
    }


def _describe(recipe: Prepare, run: Recorder) -> None:
    """Write the data card, and say which domains no evaluation will measure, and what the guard against collapse makes of
    text that models wrote; how much that is of each domain is kept for those who mix them."""
    data = run.path / "data"
    contamination = Contamination.load(run.path / "contamination").text() if recipe.decontaminate else ""
    card.write(data, contamination, recipe.synthetic)
    if missing := card.unheld(shards.manifest(data)):
        run.event("not evaluated", domains=missing, heldout=recipe.heldout, remedy=card.REMEDY)
    made = {name: share for name, share in provenance.shares(data).items() if share.generation}
    if made:
        found = {name: {"share": round(one.synthetic, 4), "generation": one.generation} for name, one in made.items()}
        domains = {name: Written(share=one.synthetic, generation=one.generation) for name, one in made.items()}
        Synthetic(domains=domains, caps=recipe.synthetic).save(data / Synthetic.FILE)
        dropped = provenance.verdict(data, recipe.synthetic).dropped
        run.event("synthetic", domains=found, dropped=dropped, says=card.guarded(data, recipe.synthetic))
        for depth, alarms in generations.write(run.path, recipe.synthetic).alarms.items():
            run.event("warning", text=generations.said(depth, alarms))


def _register(run: Recorder, built: Corpus) -> None:
    manifest = shards.manifest(run.path / "data")
    tokens = {row["domain"]: row["tokens"] for row in manifest["shards"] if row["split"] == "train"}
    run.note(
        corpus=built.hash,
        tokenizer=manifest["tokenizer"]["sha256"],
        tokenizer_hash=manifest["tokenizer"]["hash"],
        tokens=tokens,
    )
    run.event("encoder", **manifest["tokenizer"]["encoder"])
    run.artefact("tokenizer", run.path / "tokenizer", kind="tokenizer")
    run.artefact("data", run.path / "data", kind="dataset")
