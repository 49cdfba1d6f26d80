"""The last step of a build, local or Beam: lists, report and metadata, which make the shards a collection."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from data_pipelines.audio_files import Rejected
from data_pipelines.decode import Decoded
from data_pipelines.plan import PartPlan, Settings, plan_parts
from data_pipelines.records import Part, write_metadata
from data_pipelines.report import Contents, write_report
from data_pipelines.sources import Source, fingerprint
from musicssl_jax.errors import UserError


def survey(order: Sequence[Source], outcomes: Mapping[str, Decoded | Rejected], settings: Settings) -> Contents:
    """What becomes of every file. Raises UserError, with the reasons, where none is left."""
    duplicates: list[tuple[Source, Source]] = []
    known = [(source, outcomes[source.track]) for source in order]
    rejects = [(source, outcome) for source, outcome in known if isinstance(outcome, Rejected)]
    if len(rejects) == len(order):
        source, first = rejects[0]
        raise UserError(
            f"none of the {len(order)} audio files can be used ({reasons(rejects)}); "
            f"{source.track}: {first.reason}, {first.detail}"
        )
    parts = list(plan_parts(known, settings, lambda *pair: duplicates.append(pair)))
    return Contents(parts, rejects, duplicates)


def complete(
    output: epath.Path,
    order: Sequence[Source],
    contents: Contents,
    parts: Mapping[str, Part],
    settings: Settings,
) -> None:
    """Writes rejects.jsonl, duplicates.jsonl and report.html, and then the metadata."""
    rejects = sorted(contents.rejects, key=lambda reject: reject[0].track)
    _write_lines(
        output / "rejects.jsonl",
        [
            {"track": source.track, "path": source.path, "reason": reject.reason, "detail": reject.detail}
            for source, reject in rejects
        ],
    )
    _write_lines(
        output / "duplicates.jsonl",
        [{"track": copy.track, "path": copy.path, "same_as": original.track} for copy, original in contents.duplicates],
    )
    write_report(output / "report.html", contents, settings)
    write_metadata(
        output,
        sample_rate=settings.sample_rate,
        record_samples=settings.record_samples,
        splits=_by_split(contents.parts, parts),
        build={
            "settings": settings.as_dict(),
            "files": fingerprint(sorted(order, key=lambda source: source.track)),
            "found": len(order),
            "rejected": dict(Counter(reject.reason for _, reject in rejects)),
            "duplicates": len(contents.duplicates),
        },
    )


def summary(output: epath.Path) -> str:
    """What a complete collection holds, on one screen."""
    collection: dict[str, Any] = json.loads((output / "collection.json").read_text())
    build = collection["build"]
    rejected = ", ".join(f"{count} {reason}" for reason, count in build["rejected"].items()) or "none"
    lines = [f"{output}: {build['found']} audio files found, {collection['sample_rate']} Hz mono PCM16"]
    for name, split in collection["splits"].items():
        size = sum(shard["bytes"] for shard in split["shards"])
        lines.append(
            f"  {name:11}{split['tracks']} tracks, {split['hours']:.2f} h, {size / 1e9:.2f} GB "
            f"in {len(split['shards'])} shards"
        )
    return "\n".join(
        [
            *lines,
            f"  rejected   {rejected}   (rejects.jsonl)",
            f"  duplicates {build['duplicates'] or 'none'}   (duplicates.jsonl)",
            f"  report     {output / 'report.html'}",
            f"  next       python -m musicssl_jax.train --config=configs/music2vec.py --config.data.path={output}",
        ]
    )


def reasons(rejects: Sequence[tuple[Source, Rejected]]) -> str:
    """How many were rejected for what, on one line."""
    counts = Counter(reject.reason for _, reject in rejects)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _by_split(plans: Sequence[PartPlan], parts: Mapping[str, Part]) -> dict[str, list[Part]]:
    splits: dict[str, list[Part]] = {}
    for name in ("train", "valid"):
        of_split = [parts[plan.name] for plan in plans if plan.split == name]
        if of_split:
            splits[name] = of_split
    return splits


def _write_lines(path: epath.Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
