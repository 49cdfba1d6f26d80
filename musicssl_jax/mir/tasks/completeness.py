"""Whether enough of a task is there to speak of its score."""

from dataclasses import replace

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.mir.tasks.task import PARTS, Missing, Task, TaskData


def checked(data: TaskData, task: Task, max_missing: float) -> TaskData:
    """`data`, with a note on what is missing.

    What the data set itself is known to lack does not count. Raises UserError: of some part more than the share
    `max_missing` is missing, or a part is empty.
    """
    counts = {part: sum(example.part == part for example in data.examples) for part in PARTS}
    unknown = {part: [gap for gap in data.missing if gap.part == part and not gap.known] for part in PARTS}
    for part in PARTS:
        gaps = unknown[part]
        if gaps and len(gaps) > max_missing * (counts[part] + len(gaps)):
            raise UserError(
                f"{task.name}: {len(gaps)} of {counts[part] + len(gaps)} recordings of its {part} part are missing, "
                f"more than the {max_missing:.0%} allowed: {_named(gaps)}; complete what is missing "
                f"(--check-data says how to get {task.data_set}/) or raise --max_missing"
            )
    if empty := [part for part in PARTS if not counts[part]]:
        raise UserError(f"{task.name}: no recording in its {' and '.join(empty)} part; see --check-data")
    notes = tuple(
        f"{sum(gap.known == known for gap in data.missing)} recordings {what}: "
        f"{_named([gap for gap in data.missing if gap.known == known])}"
        for known, what in ((True, "are known to be unusable and left out"), (False, "are missing here and left out"))
        if any(gap.known == known for gap in data.missing)
    )
    return replace(data, notes=data.notes + notes)


def _named(gaps: list[Missing]) -> str:
    return shortened([f"{gap.recording} ({gap.reason})" for gap in gaps])
