"""`report.html`: what is in a collection, and what was left out, as people would look at it."""

import base64
import html
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etils import epath

from data_pipelines.audio_files import Rejected
from data_pipelines.plan import PartPlan, Settings, Track
from data_pipelines.sources import Source

_LISTED = 200  # rows of a table; the .jsonl files hold all

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.15em 1em .15em 0;text-align:left;
border-bottom:1px solid #ddd;vertical-align:top}img{max-width:100%}td.n{text-align:right}"""


@dataclass(frozen=True)
class Contents:
    """What became of every file: parts in record order, rejects, and (copy, original) pairs."""

    parts: Sequence[PartPlan]
    rejects: Sequence[tuple[Source, Rejected]]
    duplicates: Sequence[tuple[Source, Source]]

    @property
    def tracks(self) -> list[Track]:
        return [track for part in self.parts for track in part.tracks]


def write_report(path: epath.Path, contents: Contents, settings: Settings) -> None:
    """One self-contained page: hours, formats, lengths, levels, rejects and duplicates."""
    sections = [
        "<h1>Collection</h1>",
        _table(("split", "tracks", "hours"), _splits(contents, settings)),
        f'<img alt="lengths, levels and sources" src="data:image/png;base64,{_picture(contents, settings)}">',
        "<h2>Sources</h2>",
        _table(("codec", "rate (Hz)", "channels", "tracks", "hours"), _sources(contents, settings)),
        f"<h2>Rejected: {len(contents.rejects)}</h2>",
        _table(("reason", "files"), Counter(reject.reason for _, reject in contents.rejects).most_common()),
        _table(("file", "reason", "seen"), [(s.track, r.reason, r.detail) for s, r in contents.rejects]),
        f"<h2>Duplicates dropped: {len(contents.duplicates)}</h2>",
        _table(("file", "same audio as"), [(copy.track, kept.track) for copy, kept in contents.duplicates]),
        "<h2>Settings</h2>",
        _table(("setting", "value"), settings.as_dict().items()),
    ]
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><title>Collection</title><style>{_STYLE}</style>'
    path.write_text(f"<!doctype html>{head}{body}")


def _splits(contents: Contents, settings: Settings) -> list[tuple[str, int, str]]:
    rows = []
    for split in ("train", "valid"):
        tracks = [track for part in contents.parts if part.split == split for track in part.tracks]
        rows.append((split, len(tracks), f"{_hours(tracks, settings):.2f}"))
    return rows


def _sources(contents: Contents, settings: Settings) -> list[tuple[str, int, int, int, str]]:
    kinds: dict[tuple[str, int, int], list[Track]] = {}
    for track in contents.tracks:
        kinds.setdefault((track.audio.codec, track.audio.rate, track.audio.channels), []).append(track)
    largest = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    return [(*kind, len(tracks), f"{_hours(tracks, settings):.2f}") for kind, tracks in largest]


def _hours(tracks: Iterable[Track], settings: Settings) -> float:
    return sum(track.audio.samples for track in tracks) / settings.sample_rate / 3600


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rows = list(rows)
    if not rows:
        return "<p>none</p>"
    lines = ["".join(f"<th>{name}</th>" for name in head)]
    for row in rows[:_LISTED]:
        cells = (
            f'<td class="n">{cell}</td>' if isinstance(cell, int) else f"<td>{html.escape(str(cell))}</td>"
            for cell in row
        )
        lines.append("".join(cells))
    more = f"<p>and {len(rows) - _LISTED} more</p>" if len(rows) > _LISTED else ""
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + f"</table>{more}"


def _picture(contents: Contents, settings: Settings) -> str:
    from matplotlib.figure import Figure

    tracks = [track.audio for track in contents.tracks]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    lengths, levels, rates, channels = figure.subplots(2, 2).flat
    minutes = [audio.samples / settings.sample_rate / 60 for audio in tracks]
    lengths.hist(minutes, bins=40, range=(0, 1.05 * max(minutes)))
    lengths.set(title="Length", xlabel="minutes", ylabel="tracks")
    level = [20 * math.log10(audio.std) for audio in tracks]
    peak = [20 * math.log10(audio.peak) for audio in tracks]
    decibels = range(math.floor(min(level)) - 1, math.ceil(max(peak)) + 2)
    levels.hist(level, bins=decibels, label="level (RMS)")
    levels.hist(peak, bins=decibels, histtype="step", linewidth=1.5, label="peak of the source")
    levels.set(title="Loudness", xlabel="dBFS", ylabel="tracks")
    levels.legend(frameon=False)
    _bars(rates, [f"{audio.rate / 1000:g}" for audio in tracks])
    rates.set(title="Sample rate of the source", xlabel="kHz", ylabel="tracks")
    _bars(channels, [str(audio.channels) for audio in tracks])
    channels.set(title="Channels of the source", xlabel="channels", ylabel="tracks")
    for axes in (lengths, levels, rates, channels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.get_major_locator().set_params(integer=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _bars(axes, values: Sequence[str]) -> None:
    counts = sorted(Counter(values).items(), key=lambda item: float(item[0]))
    bars = axes.bar([name for name, _ in counts], [count for _, count in counts], width=0.5)
    axes.bar_label(bars)
    axes.margins(x=max(0.05, 1 / len(counts)))
