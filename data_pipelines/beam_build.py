"""The same build as an Apache Beam pipeline, for collections that outgrow one machine (extra `beam`).

Decoding, plan, records and metadata are the local build's own functions; Beam moves them to its workers. A decoder
still runs in a process of its own there, so that a file that crashes or hangs it is rejected by name.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from etils import epath

from data_pipelines.audio_files import AUDIO_SUFFIXES, Rejected
from data_pipelines.completion import complete, survey
from data_pipelines.decode import Decoded, decode_track
from data_pipelines.local_build import is_built, rejected
from data_pipelines.pack import encode, open_writer
from data_pipelines.plan import PartPlan, Settings, Track, arrange, plan_parts
from data_pipelines.pool import Died, WorkerPool
from data_pipelines.records import Part, Shard
from data_pipelines.sources import Source, walk_folder
from data_pipelines.tf_example import Header
from musicssl_jax.errors import UserError

try:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:
    raise UserError("--beam needs Apache Beam: pip install 'musicssl_jax[beam]'") from None

_RESULT = ".build-result.json"
PartKey = tuple[str, int]
Piece = tuple[int, int, bytes]  # the track's place in its part, the record's first sample, the record


def build_with_beam(
    sources: Sequence[Source], output: str, settings: Settings, *, time_limit: float, options: Sequence[str]
) -> None:
    """Builds the collection of `sources` in `output` on the runner that `options` name.

    Its records are those of the local build, in the same order. Raises UserError as the local build does.
    """
    folder = epath.Path(output)
    if is_built(folder, sources, settings):
        return
    _prepare(folder)
    with beam.Pipeline(options=PipelineOptions(list(options), save_main_session=False)) as pipeline:
        _construct(pipeline, sources, folder, settings, time_limit)
    outcomes, parts = _read_result(folder / _RESULT)
    order = arrange(sources, settings)
    try:
        complete(folder, order, survey(order, outcomes, settings), parts, settings)
    finally:
        (folder / _RESULT).unlink(missing_ok=True)


def list_folder(folder: str) -> list[Source]:
    """As `walk_folder`, also for what Beam's file systems reach (gs://, s3://, hdfs://)."""
    return list_files(folder) if "://" in folder else walk_folder(folder)


def list_files(folder: str) -> list[Source]:
    """All audio files under `folder`, in one listing with their sizes. Raises UserError where there is none."""
    found = []
    for entry in FileSystems.match([FileSystems.join(folder, "**")])[0].metadata_list:
        track = PurePosixPath(entry.path.removeprefix(folder).lstrip("/"))
        if track.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in track.parts):
            modified = int(entry.last_updated_in_seconds or 0)
            found.append(Source(str(track), entry.path, str(track.parent), entry.size_in_bytes, modified))
    if not found:
        raise UserError(f"{folder} holds no audio file")
    return sorted(found, key=lambda source: source.track)


def _prepare(folder: epath.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        leftovers = list(folder.glob("partial-*"))
        others = [path for path in folder.iterdir() if path not in leftovers]
        if others:
            raise UserError(f"--output={folder} holds other files: choose a new or empty folder")
        for path in leftovers:
            path.unlink()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from None


def _construct(
    pipeline: Any, sources: Sequence[Source], folder: epath.Path, settings: Settings, time_limit: float
) -> None:
    decoded = (
        pipeline
        | "Sources" >> beam.Create(sources)
        | "Spread" >> beam.Reshuffle()
        | "Decode" >> beam.ParDo(_Decode(settings, time_limit)).with_outputs("outcomes", main="pcm")
    )
    outcomes = decoded.outcomes | "KeepOutcomes" >> beam.Reshuffle()
    places = (
        outcomes
        | "AllOutcomes" >> beam.combiners.ToList()
        | "Plan" >> beam.FlatMap(_plan, settings)
        | "Places" >> beam.FlatMap(_places)
    )
    parts = (
        decoded.pcm
        | "KeepPcm" >> beam.Reshuffle()
        | "Place" >> beam.FlatMap(_place, beam.pvalue.AsDict(places))
        | "Gather" >> beam.GroupByKey()
        | "Write" >> beam.Map(_write_part, str(folder), settings)
    )
    _ = (
        pipeline
        | "End" >> beam.Create([str(folder / _RESULT)])
        | "Result" >> beam.Map(_write_result, beam.pvalue.AsList(outcomes), beam.pvalue.AsList(parts))
    )


class _Decode(beam.DoFn):
    """Source -> its PCM in pieces of a record, (track, start, bytes), and (source, outcome) under "outcomes"."""

    def __init__(self, settings: Settings, time_limit: float):
        self._settings = settings
        self._time_limit = time_limit

    def setup(self) -> None:
        self._pool = WorkerPool(1, self._time_limit)

    def teardown(self) -> None:
        self._pool.close()

    def process(self, source: Source) -> Iterator[Any]:
        with tempfile.TemporaryDirectory() as folder:
            pcm = Path(folder) / "pcm"
            outcome = self._decode(source, Path(folder), pcm)
            yield beam.pvalue.TaggedOutput("outcomes", (source, outcome))
            if isinstance(outcome, Decoded):
                step = self._settings.record_samples
                with open(pcm, "rb") as file:
                    for start in range(0, outcome.samples, step):
                        yield source.track, start, file.read(2 * step)

    def _decode(self, source: Source, folder: Path, pcm: Path) -> Decoded | Rejected:
        path = source.path
        if "://" in path:
            path = str(folder / f"audio{PurePosixPath(path).suffix}")
            with FileSystems.open(source.path) as remote, open(path, "wb") as local:
                shutil.copyfileobj(remote, local)
        self._pool.submit(source, decode_track, path, pcm, self._settings.sample_rate, self._settings.limits)
        _, result = self._pool.next()
        return rejected(result) if isinstance(result, Died) else result


def _plan(outcomes: Sequence[tuple[Source, Decoded | Rejected]], settings: Settings) -> Iterator[PartPlan]:
    by_track = {source.track: outcome for source, outcome in outcomes}
    order = arrange([source for source, _ in outcomes], settings)
    return plan_parts([(source, by_track[source.track]) for source in order], settings)


def _places(plan: PartPlan) -> Iterator[tuple[str, tuple[PartKey, int, Track]]]:
    for position, track in enumerate(plan.tracks):
        yield track.source.track, ((plan.split, plan.index), position, track)


def _place(
    piece: tuple[str, int, bytes], places: Mapping[str, tuple[PartKey, int, Track]]
) -> Iterator[tuple[PartKey, Piece]]:
    name, start, pcm = piece
    if name in places:  # else it is a duplicate
        part, position, track = places[name]
        yield part, (position, start, encode(track, start, pcm))


def _write_part(gathered: tuple[PartKey, Iterable[Piece]], folder: str, settings: Settings) -> tuple[PartKey, Part]:
    key, pieces = gathered
    # ArrayRecord writes local files alone.
    with tempfile.TemporaryDirectory() as local:
        with open_writer(*key, Path(local), settings) as writer:
            for _, _, record in sorted(pieces):
                writer.write(record)
        for shard in writer.part.shards:
            epath.Path(local, shard.file).copy(epath.Path(folder) / shard.file, overwrite=True)
    return key, writer.part


def _write_result(
    path: str,
    outcomes: Sequence[tuple[Source, Decoded | Rejected]],
    parts: Sequence[tuple[PartKey, Part]],
) -> None:
    result = {
        "decoded": {source.track: asdict(o) for source, o in outcomes if isinstance(o, Decoded)},
        "rejected": {source.track: asdict(o) for source, o in outcomes if isinstance(o, Rejected)},
        "parts": [(split, index, part.shards, part.tracks) for (split, index), part in parts],
    }
    epath.Path(path).write_text(json.dumps(result))


def _read_result(path: epath.Path) -> tuple[dict[str, Decoded | Rejected], dict[str, Part]]:
    result = json.loads(path.read_text())
    outcomes: dict[str, Decoded | Rejected] = {track: Decoded(**fields) for track, fields in result["decoded"].items()}
    outcomes |= {track: Rejected(**fields) for track, fields in result["rejected"].items()}
    parts = {
        PartPlan(split, index, ()).name: Part([Shard(*s) for s in shards], [Header(*t) for t in tracks])
        for split, index, shards, tracks in result["parts"]
    }
    return outcomes, parts
