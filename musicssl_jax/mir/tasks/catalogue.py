"""The 13 tasks by name."""

import difflib

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks import emomusic, giantsteps, gtzan, magnatagatune, mtg_jamendo, nsynth, vocalset
from musicssl_jax.mir.tasks.task import Task

_ORDER = (
    *("mtt_top50", "gtzan_genre", "giantsteps_key", "emomusic", "nsynth_pitch", "nsynth_instrument"),
    *("vocalset_technique", "vocalset_singer", "mtg_top50", "mtg_genre", "mtg_instrument", "mtg_moodtheme"),
    "gtzan_beats",
)
_MODULES = (magnatagatune, gtzan, giantsteps, emomusic, nsynth, vocalset, mtg_jamendo)
_BY_NAME: dict[str, Task] = {task.name: task for module in _MODULES for task in module.TASKS}

TASKS: dict[str, Task] = {name: _BY_NAME[name] for name in _ORDER}
"""In the order of the paper's table."""


def find_tasks(names: str) -> tuple[Task, ...]:
    """The tasks of "all", or of names with commas between, each once. Raises UserError: there is no such task."""
    if names.strip() == "all":
        return tuple(TASKS.values())
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise UserError(f"--tasks names no task; there are {', '.join(TASKS)}")
    for name in wanted:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(TASKS)}"
            raise UserError(f"--tasks: no task {name!r}; {remedy}")
    return tuple(TASKS[name] for name in wanted)
