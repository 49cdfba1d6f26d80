"""A build on this machine: a pool of processes decodes and writes, the journal remembers."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath
from tqdm import tqdm

from data_pipelines.audio_files import Rejected
from data_pipelines.completion import complete, survey
from data_pipelines.decode import Decoded, decode_track
from data_pipelines.journal import Journal, Outcome, Portion, check_settings, open_journal
from data_pipelines.pack import write_part
from data_pipelines.plan import PartPlan, Settings, arrange, plan_parts
from data_pipelines.pool import Died, WorkerPool
from data_pipelines.report import Contents
from data_pipelines.sources import Source, fingerprint
from musicssl_jax.errors import UserError


def build(
    sources: Sequence[Source],
    output: Path,
    settings: Settings,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    portion: Portion | None = None,
    progress: bool = True,
) -> None:
    """Builds the collection of `sources` in `output`; returns at once if it is there.

    `workers` processes (default: one per core); a file whose decoding shows no progress for `time_limit`
    seconds is rejected. With a `portion` (i, n) only every n-th file is decoded; a later call without one
    goes on from there. Raises UserError where no file can be used, or `output` cannot be written or holds
    something else.
    """
    if is_built(output, sources, settings):
        return
    is_new = not output.exists()
    order = arrange(sources, settings)
    with open_journal(output, settings, sources, portion) as journal:
        with (
            _Bar(sources, journal, settings, shown=progress) as bar,
            WorkerPool(workers or _cores(), time_limit, bar.advance) as pool,
        ):
            run = _Run(journal, pool, bar, output, settings)
            if portion is not None:
                run.decode(order[portion[0] :: portion[1]])
                return
            run.decode_and_pack(order)
        contents = _survey_or_clear(journal, order, output, settings, is_new)
        journal.mark_complete()
        complete(epath.Path(output), order, contents, journal.parts, settings)
        journal.remove()


class _Run:
    """One local build at work: jobs go to the pool, what comes back goes to the journal."""

    def __init__(
        self,
        journal: Journal,
        pool: WorkerPool,
        bar: "_Bar",
        output: Path,
        settings: Settings,
    ):
        self._journal = journal
        self._pool = pool
        self._bar = bar
        self._output = output
        self._settings = settings

    def decode(self, sources: Sequence[Source]) -> None:
        self._submit(sources)
        while self._pool.busy:
            self._take_result()

    def decode_and_pack(self, order: Sequence[Source]) -> None:
        """Decodes everything, and writes each part as soon as its tracks are there."""
        self._submit(order)
        for plan in plan_parts(self._outcomes_in_order(order), self._settings):
            if plan.name not in self._journal.parts:
                arguments = (plan, self._journal.pcm_folder, self._output, self._settings)
                self._pool.submit(plan, write_part, *arguments, urgent=True)
        while self._pool.busy:
            self._take_result()

    def _submit(self, sources: Sequence[Source]) -> None:
        rate, limits = self._settings.sample_rate, self._settings.limits
        for source in sources:
            if source.track not in self._journal.outcomes:
                self._pool.submit(source, decode_track, source.path, self._journal.pcm(source), rate, limits)

    def _outcomes_in_order(self, order: Sequence[Source]) -> Iterator[tuple[Source, Outcome]]:
        for source in order:
            while source.track not in self._journal.outcomes:
                self._take_result()
            yield source, self._journal.outcomes[source.track]

    def _take_result(self) -> None:
        key, result = self._pool.next()
        if isinstance(key, PartPlan):
            if isinstance(result, Died):
                raise UserError(f"writing {self._output} failed: {result.detail}; the same command goes on")
            self._journal.add_part(key, result)
        elif isinstance(key, Source):
            outcome = rejected(result) if isinstance(result, Died) else result
            self._journal.add_outcome(key, outcome)
            self._bar.finish(key, outcome)


def _cores() -> int:
    # The ones a job scheduler lends may be a few of the machine's; macOS cannot tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rejected(died: Died) -> Rejected:
    """What is noted of a file whose decoder took its process along."""
    return Rejected("decoder hung" if died.hung else "decoder crashed", died.detail)


class _Bar:
    """Progress over the bytes of the source files, with hours of audio and rejects beside it."""

    def __init__(self, sources: Sequence[Source], journal: Journal, settings: Settings, *, shown: bool):
        self._sample_rate = settings.sample_rate
        self._under_way: dict[object, float] = {}
        self._seconds = 0.0
        self._rejects = 0
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=sum(max(source.size, 0) for source in sources),
            desc=f"{len(sources)} files",
            unit="B",
            unit_scale=True,
            mininterval=0.3 if terminal else 20,
            disable=not shown,
            dynamic_ncols=True,
        )
        done = [source for source in sources if source.track in journal.outcomes]
        for source in done:
            self.finish(source, journal.outcomes[source.track])
        self._bar.initial = self._bar.n  # earlier runs' work tells nothing of this one's speed

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, key: object, seconds: float) -> None:
        """A file is `seconds` of audio far."""
        if isinstance(key, Source):
            self._under_way[key] = seconds
            self._show()

    def finish(self, source: Source, outcome: Outcome) -> None:
        self._under_way.pop(source, None)
        if isinstance(outcome, Decoded):
            self._seconds += outcome.samples / self._sample_rate
        else:
            self._rejects += 1
        self._show()
        self._bar.update(max(source.size, 0))

    def _show(self) -> None:
        hours = (self._seconds + sum(self._under_way.values())) / 3600
        self._bar.set_postfix_str(f"{hours:.2f} h, {self._rejects} rejected", refresh=False)


def is_built(output: Path, sources: Sequence[Source], settings: Settings) -> bool:
    """Raises UserError if there is a collection that is not the one asked for."""
    path = output / "collection.json"
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text())["build"]
        check_settings(output, found["settings"], settings)
        same_files = found["files"] == fingerprint(sources)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--output={output} holds a collection that this program did not build") from None
    if not same_files:
        raise UserError(f"--output={output} was built from other files: choose a new folder or remove it")
    return True


def _survey_or_clear(
    journal: Journal, order: Sequence[Source], output: Path, settings: Settings, is_new: bool
) -> Contents:
    try:
        return survey(order, journal.outcomes, settings)
    except UserError:
        journal.remove()
        if is_new:
            output.rmdir()
        raise
