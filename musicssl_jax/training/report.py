"""`report.html`: a run on one page, for people. It can be written at any time, also while the run goes on."""

import base64
import html
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util

from musicssl_jax.targets.names import set_name
from musicssl_jax.training.figures import Series, curves, label_overlay, mask_overlay, png
from musicssl_jax.training.ledger import ACCOUNTS
from musicssl_jax.training.metrics import FILE, read_metrics
from musicssl_jax.training.outlook import duration
from musicssl_jax.training.run_folder import EXAMPLE

# What each picture shows, and what to look for in it.
CAPTIONS = {
    "loss": ("Loss", "A low loss alone does not show that anything was learnt: see the next row."),
    "collapse": (
        "Signs of collapse",
        "Spread: how much targets and predictions differ from frame to frame. Share of position: how much of the "
        "targets' variance follows from the frame's position alone, whatever the music; 1 is collapse. Swap gap: how "
        "much worse predictions fit another clip's targets than their own; near 0, they do not depend on the music.",
    ),
    "accuracy": (
        "Accuracy on masked frames",
        "Grey: what giving every masked frame the label of the nearest seen one would score. A model below it has "
        "learned nothing.",
    ),
    "edges": ("Accuracy by distance from what is seen", "Inside of a masked span there is less to copy from."),
    "labels": (
        "Loss and labels in bits",
        "Guessing blindly is the logarithm of the number of clusters, guessing by frequency the entropy of the labels "
        "in a batch.",
    ),
    "layers": (
        "Layers",
        "Variance over held-out frames, and effective rank: how many directions the features really use.",
    ),
    "optimisation": ("Optimisation", ""),
    "speed": ("Speed", ""),
    "mask": ("What the student sees", "A clip of the first batch, up to 10 s of it."),
    "clip_labels": ("What it is asked for", "The same clip and the cluster of every frame, a colour a cluster."),
}

TIME_CAPTION = (
    "All time since the run was first started is in one account. Step: training itself. Data wait: for crops. "
    "Checkpoint: while it held up the steps. Lost: steps that were done again after a restart, and time without a "
    "process."
)

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #f4f5f7; margin: 0 }
main { max-width: 72em; margin: 0 auto; padding: 2em 1.2em }
h1 { margin: 0; font-size: 1.6em; overflow-wrap: anywhere } h2 { margin: 2em 0 .2em; font-size: 1.15em }
p { margin: .2em 0 .6em; color: #565d6b; max-width: 62em }
img { width: 100%; display: block; background: #fff; border-radius: 8px; box-shadow: 0 1px 3px #0002 }
.bar { height: 6px; border-radius: 3px; background: #d9dde4; margin: .8em 0 1.2em }
.bar div { height: 100%; border-radius: 3px; background: #2f6db5 }
.cards { display: flex; flex-wrap: wrap; gap: .7em }
.card { background: #fff; border-radius: 8px; box-shadow: 0 1px 3px #0002; padding: .6em 1em; min-width: 8em }
.card b { display: block; font-size: 1.3em; font-weight: 600 } .card span { color: #565d6b; font-size: .85em }
.bad b { color: #c2372e }
.columns { columns: 22em; column-gap: 2.5em; background: #fff; border-radius: 8px; padding: 1em; font-size: .85em;
  box-shadow: 0 1px 3px #0002 }
.columns div { display: flex; justify-content: space-between; gap: 1em; border-bottom: 1px solid #eceef1;
  break-inside: avoid } .columns dd { margin: 0; text-align: right; overflow-wrap: anywhere }
"""


def write_report(workdir: Path, checkpoints: epath.PathLike) -> None:
    """Writes `report.html`, which needs no other file, and its pictures as PNG files into a run's folder.

    checkpoints: the run's, which know its versions.
    A report is worth no run: when it cannot be written, that is said on stderr and the run goes on.
    """
    try:
        page = workdir / "report.html"
        unfinished = workdir / ".report.html"
        unfinished.write_text(_page(workdir, checkpoints), encoding="utf-8")
        unfinished.replace(page)
    except OSError as error:
        print(f"cannot write the report of {workdir} ({error.strerror})", file=sys.stderr)


def _page(workdir: Path, checkpoints: epath.PathLike) -> str:
    series = read_metrics(workdir / FILE)
    config = _read_json(workdir / "config.json")
    name = html.escape(str(config.get("name") or workdir.resolve().name))
    sections = [_header(name, series, config), *_pictures(workdir, series, config), "<h2>Config</h2>"]
    sections.append(_columns(traverse_util.flatten_dict(config, sep=".").items()))
    if "time/total" in series:
        sections += ["<h2>Where the time went</h2>", f"<p>{TIME_CAPTION}</p>", _columns(_accounts(series))]
    versions = _newest_meta(checkpoints).get("versions", {})
    if versions:
        sections += ["<h2>Versions</h2>", _columns(versions.items())]
    body = "\n".join(sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )


def _header(name: str, series: Series, config: Mapping[str, Any]) -> str:
    step = max((int(steps[-1]) for steps, _ in series.values()), default=0)
    steps = config.get("steps", 0)
    share = step / steps if steps else 0
    cards = "".join(_card(*card) for card in _cards(series, config))
    return (
        f"<h1>{name}</h1><p>{_status(step, steps, series)}</p>"
        f'<div class="bar"><div style="width:{min(share, 1):.1%}"></div></div><div class="cards">{cards}</div>'
    )


def _status(step: int, steps: int, series: Series) -> str:
    if not step:
        return "nothing logged yet"
    if "train/loss" in series and not math.isfinite(_last(series, "train/loss")):
        return f"diverged at step {step:,} of {steps:,}: the loss is not finite"
    if not steps:
        return f"step {step:,}"
    if step >= steps:
        return f"all {step:,} steps done"
    return f"step {step:,} of {steps:,} ({step / steps:.1%})"


def _cards(series: Series, config: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(label, value, whether it is beyond a threshold) of what has been logged."""
    limits = config.get("collapse", {})
    loss = _last(series, "train/loss")
    for label, name, text, bad in (
        ("loss", "train/loss", "{:.4g}", lambda v: not math.isfinite(v)),
        ("held-out loss", "valid/loss", "{:.4g}", lambda v: not math.isfinite(v)),
        ("swap gap", "prediction/swap_gap", "{:.3g}", lambda v: v < limits.get("swap_gap", -math.inf) * loss),
        ("share of position", "target/positional_share", "{:.3f}", lambda v: v > limits.get("positional_share", 1)),
        ("target spread", "target/spread", "{:.3f}", lambda v: v < limits.get("target_spread", 0)),
        ("prediction spread", "prediction/spread", "{:.3f}", lambda v: v < limits.get("prediction_spread", 0)),
        ("hours of audio", "data/audio_hours", "{:,.1f}", None),
        ("times real time", "perf/audio_seconds_per_second", "{:,.1f}", None),
        ("MFU", "perf/mfu", "{:.1%}", None),
    ):
        if name in series:
            value = _last(series, name)
            yield label, text.format(value), bool(bad and bad(value))
    if "time/total" in series:
        yield "since it was started", duration(_last(series, "time/total")), False


def _accounts(series: Series) -> Iterator[tuple[str, str]]:
    total = _last(series, "time/total")
    for name in ACCOUNTS:
        spent = _last(series, f"time/{name}")
        yield name.replace("_", " "), f"{duration(spent)} ({spent / total:.1%})"


def _last(series: Series, name: str) -> float:
    return float(series[name][1][-1]) if name in series else math.nan


def _card(label: str, value: str, bad: bool) -> str:
    return f'<div class="card{" bad" if bad else ""}"><b>{value}</b><span>{label}</span></div>'


def _pictures(workdir: Path, series: Series, config: Mapping[str, Any]) -> Iterator[str]:
    figures = curves(series, config)
    if (workdir / EXAMPLE).exists():
        with np.load(workdir / EXAMPLE) as example:
            seen = (example["waveform"], int(example["sample_rate"]), example["mask"])
            figures["mask"] = mask_overlay(*seen)
            if "labels" in example:
                figures["clip_labels"] = label_overlay(
                    *seen, example["labels"], [set_name(t) for t in config["targets"]]
                )
    for name, figure in figures.items():
        picture = png(figure)
        (workdir / f"{name}.png").write_bytes(picture)
        title, caption = CAPTIONS[name]
        data = base64.b64encode(picture).decode()
        yield f'<h2>{title}</h2><p>{caption}</p><img alt="{title}" src="data:image/png;base64,{data}">'


def _columns(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = (f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in pairs)
    return f'<dl class="columns">{"".join(rows)}</dl>'


def _newest_meta(checkpoints: epath.PathLike) -> dict[str, Any]:
    """What the newest checkpoint says of its run; empty when there is none."""
    steps = sorted(
        (path for path in epath.Path(checkpoints).glob("*") if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    return _read_json(steps[-1] / "meta" / "metadata").get("meta", {}) if steps else {}


def _read_json(path: epath.PathLike) -> dict[str, Any]:
    """Empty when the file is not there or is damaged: a report shows what there is."""
    try:
        content = json.loads(epath.Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
