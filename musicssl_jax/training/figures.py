"""Pictures of a run: curves by family, and a clip with the mask that the student saw."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from musicssl_jax.shapes import Bool, Float, Int

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
Panel = Callable[[Axes], None]

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db5", "#e07b28", "#3a9457", "#c2372e", "#8a8f98"
FROM_ZERO = (0.0, None)
FEW_POINTS, MANY_POINTS = 30, 300
SHOWN_SECONDS = 10  # of a clip: masked spans are a fifth of a second
MEL_BANDS = 80
FLOOR_DECIBELS = 70  # below the loudest bin


def curves(series: Series, config: Mapping[str, Any]) -> dict[str, Figure]:
    """A figure for each family that has been logged: loss, collapse, layers, optimisation, speed.

    `series`: what `read_metrics` gives. `config`: the resolved config as nested dicts; from its section
    `collapse` the thresholds are drawn. What is missing in either is left out.
    """
    families: dict[str, list[Panel | None]] = {
        "loss": [_panel(series, "Loss", {"train/loss": ("training", BLUE), "valid/loss": ("held out", ORANGE)})],
        "collapse": [_spreads(series, config), _positional_share(series, config), _swap_gap(series, config)],
        "accuracy": [_accuracy(series, name) for name in _label_sets(series)],
        "edges": [_accuracy_by_distance(series, name) for name in _label_sets(series)],
        "labels": [_label_bits(series, name) for name in _label_sets(series)],
        "layers": [_layers(series, "variance", log=True), _layers(series, "effective_rank")],
        "optimisation": [
            _panel(series, "Learning rate", {"train/learning_rate": ("", BLUE)}, span=FROM_ZERO),
            _panel(series, "Gradient norm", {"train/grad_norm": ("", BLUE)}, log=True),
            _panel(series, "Teacher's decay", {"teacher/decay": ("", BLUE)}),
        ],
        "speed": [
            _panel(series, "Audio, times real time", {"perf/audio_seconds_per_second": ("", GREEN)}, span=FROM_ZERO),
            _panel(series, "Seconds a step", {"perf/step_seconds": ("", GREEN)}, span=FROM_ZERO),
            _panel(series, "Model FLOP utilisation", {"perf/mfu": ("", GREEN)}, span=FROM_ZERO),
        ],
    }
    drawable = {name: [panel for panel in panels if panel] for name, panels in families.items()}
    return {name: _figure(panels) for name, panels in drawable.items() if panels}


def png(figure: Figure) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _figure(panels: list[Panel]) -> Figure:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure


def _panel(
    series: Series,
    title: str,
    lines: Mapping[str, tuple[str, str]],
    *,
    log: bool = False,
    span: tuple[float | None, float | None] = (None, None),
    limits: Iterable[tuple[float, str, str]] = (),
    unjudged: float = 0.0,
) -> Panel | None:
    """Draws lines {name: (label, colour)} as far as they are logged; None when none of them is.

    `log`: logarithmic values; `span`: ends of the axis, None to fit; `limits`: (value, label, colour) as dashed lines;
    `unjudged`: steps before which the limits do not count, shaded.
    """
    present = {name: style for name, style in lines.items() if name in series}
    if not present:
        return None

    def draw(axes: Axes) -> None:
        axes.set_title(title, fontsize=11, loc="left")
        for name, (label, colour) in present.items():
            _draw_line(axes, *series[name], label, colour)
        for value, label, colour in limits:
            axes.axhline(value, color=colour, linestyle="--", linewidth=1)
            axes.text(
                1, value, label, transform=axes.get_yaxis_transform(), color=colour, fontsize=8, ha="right", va="bottom"
            )
        if unjudged:
            axes.axvspan(0, min(unjudged, axes.get_xlim()[1]), color=GREY, alpha=0.12, label="not judged yet")
        if log and all((series[name][1] > 0).any() for name in present):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(*span)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8, edgecolor="none", framealpha=0.8)

    return draw


def _draw_line(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    """A line with its points where they are few; a running mean over the pale line where they are many."""
    many = len(steps) > MANY_POINTS
    marker = "o" if len(steps) < FEW_POINTS else None
    axes.plot(steps, values, color=colour, linewidth=1.3, marker=marker, markersize=3, alpha=0.3 if many else 1)
    if many:
        window = len(steps) // 50
        values = np.convolve(values, np.ones(window) / window, mode="valid")
        steps = steps[window // 2 :][: len(values)]
        axes.plot(steps, values, color=colour, linewidth=1.6)
    axes.plot([], [], color=colour, label=label or None)


def _limits(config: Mapping[str, Any], *fields: tuple[str, str, str]) -> list[tuple[float, str, str]]:
    collapse = config.get("collapse", {})
    return [(float(collapse[field]), label, colour) for field, label, colour in fields if field in collapse]


def _unjudged(config: Mapping[str, Any]) -> float:
    return float(config.get("collapse", {}).get("after", 0) * config.get("steps", 0))


def _spreads(series: Series, config: Mapping[str, Any]) -> Panel | None:
    lines = {"target/spread": ("target", BLUE), "prediction/spread": ("prediction", ORANGE)}
    limits = _limits(
        config, ("target_spread", "least for targets", BLUE), ("prediction_spread", "least for predictions", ORANGE)
    )
    return _panel(series, "Spread", lines, span=FROM_ZERO, limits=limits, unjudged=_unjudged(config))


def _positional_share(series: Series, config: Mapping[str, Any]) -> Panel | None:
    limits = _limits(config, ("positional_share", "most", RED))
    lines = {"target/positional_share": ("", BLUE)}
    title = "Share of position in the targets"
    return _panel(series, title, lines, span=(0.0, 1.0), limits=limits, unjudged=_unjudged(config))


def _swap_gap(series: Series, config: Mapping[str, Any]) -> Panel | None:
    """The gap as a share of the loss, which its threshold refers to."""
    if not {"prediction/swap_gap", "train/loss"} <= series.keys():
        return None
    (gap_steps, gaps), (loss_steps, losses) = series["prediction/swap_gap"], series["train/loss"]
    steps, at_gap, at_loss = np.intersect1d(gap_steps, loss_steps, return_indices=True)
    share = {"share": (steps, gaps[at_gap] / losses[at_loss])}
    limits = _limits(config, ("swap_gap", "least", RED))
    title = "Swap gap, as a share of the loss"
    return _panel(share, title, {"share": ("", BLUE)}, limits=limits, unjudged=_unjudged(config))


def _layers(series: Series, what: str, *, log: bool = False) -> Panel | None:
    """One line a block, from dark (first) to light (last), and the conv stack."""
    numbers = sorted(
        int(name.split("/")[1]) for name in series if name.startswith("block/") and name.endswith(f"/{what}")
    )
    shades = [to_hex(shade) for shade in colormaps["viridis"](np.linspace(0, 0.9, len(numbers)))]
    # A legend of every block would hide the curves: the first, the middle and the last tell the shades.
    named = {numbers[i] for i in (0, len(numbers) // 2, -1)} if numbers else set()
    lines = {
        f"block/{n}/{what}": (f"block {n}" if n in named else "", shade)
        for n, shade in zip(numbers, shades, strict=True)
    }
    lines[f"conv/{what}"] = ("conv stack", RED)
    return _panel(series, what.replace("_", " ").capitalize() + " of the layers", lines, log=log)


def _label_sets(series: Series) -> list[str]:
    """The label sets of a musicHuBERT run."""
    names = [name.removesuffix("/copy_accuracy") for name in series if name.endswith("/copy_accuracy")]
    return sorted(name for name in names if not name.startswith("valid/"))


def _accuracy(series: Series, name: str) -> Panel | None:
    lines = {
        f"{name}/accuracy": ("masked", BLUE),
        f"valid/{name}/accuracy": ("masked, held out", ORANGE),
        f"{name}/unmasked_accuracy": ("seen", GREEN),
        f"{name}/copy_accuracy": ("copying the nearest seen", GREY),
    }
    return _panel(series, name, lines, span=FROM_ZERO)


def _accuracy_by_distance(series: Series, name: str) -> Panel | None:
    found = sorted(key for key in series if key.startswith(f"{name}/accuracy_at_"))
    shades = [to_hex(shade) for shade in colormaps["viridis"](np.linspace(0, 0.9, len(found)))]
    labels = [f"{key.rpartition('_')[2]} frames away" for key in found]
    labels[-1] += " or more"
    lines = {key: (label, shade) for key, label, shade in zip(found, labels, shades, strict=True)}
    return _panel(series, name, lines, span=FROM_ZERO)


def _label_bits(series: Series, name: str) -> Panel | None:
    lines = {
        f"{name}/loss_bits": ("loss", BLUE),
        f"{name}/label_entropy_bits": ("guessing by frequency", ORANGE),
        f"{name}/chance_bits": ("guessing blindly", GREY),
    }
    return _panel(series, f"{name}, bits", lines, span=FROM_ZERO)


def label_overlay(
    waveform: Float[np.ndarray, " samples"],
    sample_rate: int,
    mask: Bool[np.ndarray, " frames"],
    labels: Int[np.ndarray, "frames sets"],
    names: Sequence[str],
) -> Figure:
    """The spectrogram of the first seconds of a clip over its labels, a colour a cluster; masked frames are marked."""
    seconds = len(waveform) / sample_rate
    shown = min(seconds, SHOWN_SECONDS)
    frames = round(shown / seconds * len(mask))
    figure = Figure(figsize=(11, 3.2 + 0.35 * labels.shape[1]), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[5, labels.shape[1] + 0.6])
    above.imshow(log_mel(waveform[: int(shown * sample_rate)], sample_rate), cmap="magma", **_across(shown))
    # Multiples of the golden ratio: neighbouring numbers get colours far apart.
    colours = colormaps["hsv"](labels[:frames].T * 0.6180339887 % 1)
    hidden = colormaps["gray"](np.where(mask[:frames], 0.0, 1.0))
    below.imshow(np.concatenate([hidden[None], colours]), **_across(shown))
    rows = 1 + labels.shape[1]
    below.set_yticks((np.arange(rows) + 0.5) / rows, ["black: masked", *names])
    below.set_xlabel("seconds")
    above.set_yticks([])
    return figure


def _across(seconds: float) -> dict[str, Any]:
    return {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, 1), "interpolation": "none"}


def mask_overlay(
    waveform: Float[np.ndarray, " samples"], sample_rate: int, mask: Bool[np.ndarray, " frames"]
) -> Figure:
    """Log-mel spectrogram of the first seconds of a clip; masked frames are veiled and marked below."""
    seconds = len(waveform) / sample_rate
    shown = min(seconds, SHOWN_SECONDS)
    picture = log_mel(waveform[: int(shown * sample_rate)], sample_rate)
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        picture, origin="lower", aspect="auto", cmap="magma", extent=(0, shown, 0, len(picture)), interpolation="none"
    )
    starts, ends = _runs(mask)
    for start, end in zip(starts * seconds / len(mask), ends * seconds / len(mask), strict=True):
        axes.axvspan(start, end, color="white", alpha=0.42, linewidth=0)
        axes.axvspan(start, end, ymax=0.035, color="#22c0e8", linewidth=0)
    axes.set(xlim=(0, shown), xlabel="seconds", ylabel="frequency (Hz)")
    axes.set_title(f"Veiled: hidden from the student ({mask.mean():.0%} of the clip's frames)", fontsize=11, loc="left")
    marks = [f for f in (125, 250, 500, 1000, 2000, 4000, 8000) if f <= sample_rate / 2]
    axes.set_yticks(_mel(np.array(marks)) / _mel(sample_rate / 2) * len(picture), [f"{f:,}" for f in marks])
    return figure


def _runs(mask: Bool[np.ndarray, " frames"]) -> tuple[np.ndarray, np.ndarray]:
    """First frames and ends (exclusive) of the masked spans."""
    change = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return np.flatnonzero(change == 1), np.flatnonzero(change == -1)


def log_mel(waveform: Float[np.ndarray, " samples"], sample_rate: int) -> Float[np.ndarray, "bands times"]:
    """Decibels relative to the loudest band, -70 at least: 40 ms Hann windows every 10 ms, HTK's mel scale."""
    size, hop = sample_rate // 25, sample_rate // 100
    padded = np.pad(waveform, (0, max(size - len(waveform), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, n=4 * size)) ** 2
    bands = power @ _mel_bands(sample_rate, power.shape[1]).T
    decibels = 10 * np.log10(np.maximum(bands, 1e-20))
    return np.maximum(decibels - decibels.max(), -FLOOR_DECIBELS).T


def _mel_bands(sample_rate: int, bins: int) -> Float[np.ndarray, "bands bins"]:
    """Triangles of height 1 with corners evenly spaced in mel from 0 to half the sample rate."""
    corners = np.linspace(0, _mel(sample_rate / 2), MEL_BANDS + 2)
    place = _mel(np.linspace(0, sample_rate / 2, bins))
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(np.minimum((place - low) / (centre - low), (high - place) / (high - centre)), 0)


def _mel(hertz: Any) -> Any:
    """The mel scale as in HTK: 2595 log10(1 + f / 700)."""
    return 2595 * np.log10(1 + hertz / 700)
