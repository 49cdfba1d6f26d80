"""Who is evaluated, and whether they have heard the music before."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from musicssl_jax.mir.contamination.check import Found, contamination, find_matches
from musicssl_jax.mir.contamination.index import Index, ensure_index
from musicssl_jax.mir.contamination.pretraining import Pretraining, pretraining_collections
from musicssl_jax.mir.features.encoders import Representation
from musicssl_jax.mir.report.results import Contamination
from musicssl_jax.mir.tasks.task import Recording, Task, TaskData


class Contestant(NamedTuple):
    """source: an encoder, or a folder of features that were made elsewhere. seeds: pretraining runs behind it; None:
    not trained, or not known. checkpoint: what it was loaded from, if it was. contamination: by task."""

    name: str
    source: Representation | Path
    seeds: int | None = None
    checkpoint: str | None = None
    contamination: Mapping[str, Contamination] = {}


def contaminations(
    contestants: Sequence[Contestant],
    found: Sequence[tuple[Task, TaskData]],
    given: Sequence[str],
    journal: Path,
    say: Callable[[str], None],
) -> list[Contestant]:
    """The contestants, and what of each task those that are checkpoints have heard in training.

    given: folders of pretraining data besides those that a checkpoint names. journal: folder in which finished searches
    are kept. say: is told what is not checked, and which of the given folders nobody was trained on.
    Raises UserError: a collection is damaged.
    """
    searched: dict[tuple[str, ...], dict[str, Found]] = {}
    unused = set(map(epath.Path, given))
    out = []
    for contestant in contestants:
        pretraining = _pretraining(contestant, given)
        if pretraining is None:
            out.append(contestant)
            continue
        for line in pretraining.not_checked:
            say(f"{contestant.name}: not checked for contamination: {line}")
        unused -= set(pretraining.folders)
        key = tuple(map(str, pretraining.folders))
        if key and key not in searched:
            searched[key] = _search([ensure_index(folder) for folder in pretraining.folders], found, journal)
        by_task = {
            task.name: _of_task(
                contamination(searched[key][task.data_set], data) if key else None, pretraining.not_checked
            )
            for task, data in found
        }
        out.append(contestant._replace(contamination=by_task))
    for folder in sorted(unused):
        say(f"--pretraining_data={folder} is not used: every encoder here is untrained, or says what it was trained on")
    return out


def _pretraining(contestant: Contestant, given: Sequence[str]) -> Pretraining | None:
    """What it was trained on: as its checkpoint says, or else as the user does. None: untrained, or nobody says."""
    if contestant.checkpoint is not None and contestant.seeds is not None:
        return pretraining_collections(contestant.checkpoint, given=given)
    foreign = isinstance(contestant.source, Path) or contestant.source.kind == "function"
    return Pretraining(tuple(map(epath.Path, given)), ()) if foreign and given else None


def _search(indexes: Sequence[Index], found: Sequence[tuple[Task, TaskData]], journal: Path) -> dict[str, Found]:
    """By data set, within which ids are unique."""
    recordings: dict[str, dict[str, Recording]] = {}
    for task, data in found:
        recordings.setdefault(task.data_set, {}).update(data.recordings)
    return {name: find_matches(indexes, every.values(), journal=journal / name) for name, every in recordings.items()}


def _of_task(result: Mapping[str, Any] | None, not_checked: Sequence[str]) -> Contamination:
    note = "; ".join(f"not checked: {line}" for line in not_checked)
    if result is None:
        return Contamination(None, None, None, note=note or "not checked")
    undecided = ", ".join(f"{count} not decided ({reason})" for reason, count in result["undecided"].items())
    examples = tuple((match["recording"], match["track"], float(match["offset"])) for match in result["examples"])
    notes = "; ".join(filter(None, [note, undecided]))
    return Contamination(result["train"], result["valid"], result["test"], examples, notes)
