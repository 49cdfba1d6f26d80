"""How probes are trained, by protocol."""

from dataclasses import dataclass, replace
from typing import Literal

from musicssl_jax.mir.tasks.task import ProtocolName

Network = Literal["mlp", "linear"]

RATES = (5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
"""Of MARBLE v1's probes (its probe_m2v.sh)."""

LARGE_ROWS = 50_000
"""Rows of training from which `ours` takes larger batches and gives up half of the grid's probes at a time."""


@dataclass(frozen=True)
class Settings:
    """hidden: units of an MLP's one hidden layer. dropout: of them. standardise: features by training rows' mean and
    deviation. average: what is averaged over the rows of a unit. patience_rate: epochs without a better validation
    score after which the rate is halved; patience_stop: after which a probe ends. halving: rounds in which the worse
    half of the grid's probes is given up, after 1, 2, 4, ... epochs. large_rows: above which `for_size` changes them;
    None: never. rows_per_epoch, valid_rows: at most so many, drawn anew each epoch and once; None: all.
    selection_seed: of the grid; seeds: of the chosen probe.
    """

    hidden: int = 512
    dropout: float = 0.2
    rates: tuple[float, ...] = RATES
    batch: int = 64
    epochs: int = 100
    patience_rate: int = 3
    patience_stop: int = 10
    standardise: bool = True
    average: Literal["probabilities", "logits"] = "probabilities"
    halving: int = 0
    large_rows: int | None = LARGE_ROWS
    rows_per_epoch: int | None = None
    valid_rows: int | None = None
    selection_seed: int = 1234
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


PROTOCOLS: dict[ProtocolName, Settings] = {
    "ours": Settings(),
    "marble-v1": Settings(standardise=False, average="logits", patience_rate=6, patience_stop=20, large_rows=None),
}

MARBLE_PATIENCE = {
    **dict.fromkeys(("giantsteps_key", "emomusic", "vocalset_singer"), (5, 20)),
    "vocalset_technique": (5, 10),
    **dict.fromkeys(("mtt_top50", "nsynth_pitch", "nsynth_instrument"), (3, 10)),
    **dict.fromkeys(("mtg_top50", "mtg_genre", "mtg_instrument", "mtg_moodtheme"), (3, 10)),
}
"""By task the `patience_rate` and `patience_stop` of MARBLE v1's base configs, where they are not GTZAN's."""


def settings_for(protocol: ProtocolName, *, task: str = "", seeds: int = 5, epochs: int = 100) -> Settings:
    """A protocol's settings for a task of this name."""
    settings = replace(PROTOCOLS[protocol], seeds=tuple(range(seeds)), epochs=epochs)
    if protocol == "marble-v1" and task in MARBLE_PATIENCE:
        rate, stop = MARBLE_PATIENCE[task]
        settings = replace(settings, patience_rate=rate, patience_stop=stop)
    return settings


def for_size(settings: Settings, train_rows: int) -> Settings:
    """The settings for so many training rows."""
    if settings.large_rows is None or train_rows <= settings.large_rows:
        return settings
    return replace(settings, batch=512, epochs=min(settings.epochs, 50), halving=4)


def for_seeds(settings: Settings) -> Settings:
    """The settings for the chosen probe: each of its seeds goes on to its own end."""
    return replace(settings, halving=0)


def for_frames(settings: Settings) -> Settings:
    """The settings for probes of single frames, of which there are hundreds of thousands; in either protocol."""
    return replace(settings, batch=512, epochs=30, halving=3, rows_per_epoch=32_768, valid_rows=32_768)
