"""Small synthetic data sets in the official layouts of the 13 tasks, for demos and tests.

The layouts, with their quirks and known defects, are built from descriptions of the official sets and from lists in
public repositories. They share no code and no constants with the readers in `musicssl_jax.mir.tasks`, so that each can
find the other's mistakes; neither is proof that the official audio is read well. What a label says is in the sound:
key, beats, pitch, voice, tempo and level are played, tags and genres are voices, registers and rhythms.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from data_pipelines.musicbox.official_layouts.accidents import damage
from data_pipelines.musicbox.official_layouts.emomusic import write_emomusic
from data_pipelines.musicbox.official_layouts.giantsteps import write_giantsteps
from data_pipelines.musicbox.official_layouts.gtzan import write_gtzan
from data_pipelines.musicbox.official_layouts.layout import SIZES, Layout, Row, Size
from data_pipelines.musicbox.official_layouts.magnatagatune import write_magnatagatune
from data_pipelines.musicbox.official_layouts.marble_manifests import write_marble_manifests
from data_pipelines.musicbox.official_layouts.mtg_jamendo import write_mtg_jamendo
from data_pipelines.musicbox.official_layouts.nsynth import write_nsynth
from data_pipelines.musicbox.official_layouts.tfds_nsynth import write_tfds_nsynth
from data_pipelines.musicbox.official_layouts.vocalset import write_vocalset

__all__ = [
    "DATA_SETS",
    "SIZES",
    "Layout",
    "Row",
    "Size",
    "write_gtzan",
    "write_marble_manifests",
    "write_task_sets",
    "write_tfds_nsynth",
]

DATA_SETS = {
    "magnatagatune": write_magnatagatune,
    "gtzan": write_gtzan,
    "giantsteps": write_giantsteps,
    "emomusic": write_emomusic,
    "nsynth": write_nsynth,
    "vocalset": write_vocalset,
    "mtg_jamendo": write_mtg_jamendo,
}


def write_task_sets(
    folder: str | Path,
    *,
    seed: int,
    size: str | Size = "tiny",
    sets: Collection[str] | None = None,
    marble: bool = False,
    accidents: bool = False,
) -> dict[str, dict[str, Any]]:
    """Writes `folder/<data set>/...` and says what was planted: data set -> `Layout.description()`.

    size: a name in SIZES, or a Size. sets: some of DATA_SETS; None: all. accidents: besides the defects that the
    official sets are known for, a missing, an empty and a cut-off file in each. marble: also writes
    `folder/marble/data/<SET>/<TASK>.<part>.jsonl`, and adds "marble" (manifest -> number of lines) to the result.
    The same seed and size give the same files, whichever sets are written.
    """
    amount = SIZES[size] if isinstance(size, str) else size
    layouts: dict[str, Layout] = {}
    for name in DATA_SETS if sets is None else sets:
        layouts[name] = DATA_SETS[name](Path(folder) / name, seed, amount)
        if accidents:
            damage(layouts[name])
    planted = {name: layout.description() for name, layout in layouts.items()}
    if marble:
        planted["marble"] = dict(write_marble_manifests(Path(folder) / "marble", layouts))
    return planted
