"""The picture of a codebook: how the fit went, and how much each cluster is used."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musicssl_jax.targets.codebook import Codebook
from musicssl_jax.training.figures import BLUE, GREEN, GREY, ORANGE


def codebook_picture(codebook: Codebook) -> Figure:
    """Inertia of the batches, and the clusters' shares of the frames from the most to the least used."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    figure.suptitle(_title(codebook), fontsize=12, x=0.01, ha="left")
    left, right = figure.subplots(1, 2)
    _draw_inertia(left, codebook.inertia_curve)
    _draw_usage(right, codebook.usage)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, edgecolor="none", framealpha=0.8)
    return figure


def _title(codebook: Codebook) -> str:
    """What the clusters are of."""
    front_end = codebook.front_end
    name = f"layer {front_end['layer']} of an earlier run" if "layer" in front_end else front_end["front_end"]
    title = f"{len(codebook.centroids)} clusters of {name}"
    if codebook.agreement is None:
        return title
    return f"{title}: labels agree on {codebook.agreement:.1%} of frames where two crops overlap by half"


def _draw_inertia(axes: Axes, curve: np.ndarray) -> None:
    batches = np.arange(1, len(curve) + 1)
    axes.plot(batches, curve, color=GREY, linewidth=1, alpha=0.6, label="before the batch's update")
    width = len(curve) // 10
    if width > 1:
        means = np.convolve(curve, np.full(width, 1 / width), "valid")
        axes.plot(batches[width - 1 :], means, color=BLUE, linewidth=1.5, label=f"mean of {width} batches")
    axes.set_title("Inertia: mean squared distance to the nearest centroid", fontsize=11, loc="left")
    axes.set(xlabel="batch", xlim=(1, max(len(curve), 2)), ylim=(0, None))


def _draw_usage(axes: Axes, usage: np.ndarray) -> None:
    shares = np.sort(usage)[::-1] / max(usage.sum(), 1)
    empty = int((usage == 0).sum())
    rank = np.arange(1, len(usage) + 1)
    axes.fill_between(rank, shares, step="mid", color=GREEN, alpha=0.5, linewidth=0)
    axes.plot(rank, shares, color=GREEN, linewidth=1, drawstyle="steps-mid", label="share of the frames")
    axes.axhline(1 / len(usage), color=GREY, linestyle="--", linewidth=1, label="if all were used alike")
    if empty:
        axes.axvspan(len(usage) - empty + 0.5, len(usage) + 0.5, color=ORANGE, alpha=0.3, label=f"{empty} empty")
    axes.set_title(f"Use of the {len(usage)} clusters", fontsize=11, loc="left")
    axes.set(xlabel="clusters, most used first", xlim=(0.5, len(usage) + 0.5), ylim=(0, None))
