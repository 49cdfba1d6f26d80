"""From audio files to a collection that training reads:

    python -m data_pipelines.build --input=DIR --output=DATA

Decodes, mixes to mono and resamples in a pool of processes, drops what is useless or there twice, splits into
train and valid, and writes records. Interrupted, the same command goes on where it was. See docs/data.md.
"""

import argparse
import contextlib
import fcntl
import hashlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from etils import epath

from data_pipelines.completion import summary
from data_pipelines.decode import Limits
from data_pipelines.journal import FOLDER as JOURNAL
from data_pipelines.journal import Portion
from data_pipelines.local_build import build
from data_pipelines.plan import Settings
from data_pipelines.sources import Source, exclude, fingerprint, read_manifest, walk_folder
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError


def ensure_collection(path: str, cache: Path, sample_rate: int, *, progress: bool = True) -> epath.Path:
    """The collection at `path`, or that of the audio files under it, built into `cache` if it is not there.

    What is in the cache is used for as long as names, sizes and times of the files stay the same. Processes
    that ask at the same time wait for the first. Raises UserError where `path` is neither.
    """
    folder = epath.Path(path)
    if "://" in path or (folder / "collection.json").exists() or (folder / "dataset_info.json").exists():
        return folder
    if (folder / JOURNAL).exists():
        raise UserError(f"{path} holds an unfinished build: give the same build command again to finish it")
    sources = walk_folder(path)
    settings = Settings(sample_rate=sample_rate)
    content = f"{Path(path).resolve()} {fingerprint(sources)} {settings}"
    name = f"{Path(path).resolve().name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    with _only_process(cache / f"{name}.lock"):
        if progress and not (cache / name / "collection.json").exists():
            print(f"{path}: {len(sources)} audio files, built once into {cache / name}", file=sys.stderr)
        build(sources, cache / name, settings, progress=progress)
    return epath.Path(cache / name)


@contextlib.contextmanager
def _only_process(lock: Path) -> Iterator[None]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or lock}: {error.strerror or error}") from None


def main(argv: Sequence[str]) -> None:
    arguments, rest = _parser().parse_known_args(argv)
    if rest and not arguments.beam:
        raise UserError(f"unknown argument {rest[0]} (see --help; options of a Beam runner need --beam)")
    if arguments.beam and arguments.shard:
        raise UserError("--shard splits the work of the local build; a Beam runner does that itself")
    settings = _settings(arguments)
    started = time.monotonic()
    if arguments.beam:
        from data_pipelines.beam_build import build_with_beam, list_folder

        sources = _sources(arguments, list_folder)
        build_with_beam(sources, arguments.output, settings, time_limit=arguments.time_limit, options=rest)
    else:
        _build_here(arguments, _sources(arguments, walk_folder), settings)
        if arguments.shard is not None:
            return
    print(summary(epath.Path(arguments.output)))
    print(f"  took       {time.monotonic() - started:.0f} s")


def _build_here(arguments: argparse.Namespace, sources: Sequence[Source], settings: Settings) -> None:
    if "://" in arguments.output:
        raise UserError(f"--output={arguments.output}: without --beam it must be a local or mounted folder")
    build(
        sources,
        Path(arguments.output),
        settings,
        workers=arguments.workers,
        time_limit=arguments.time_limit,
        portion=arguments.shard,
    )
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    if arguments.shard is not None:
        index, count = arguments.shard
        print(
            f"share {index} of {count} is decoded in {usage.ru_utime + usage.ru_stime:.0f} CPU-seconds. When "
            f"all are, the same command without --shard joins them into {arguments.output}"
        )


def _sources(arguments: argparse.Namespace, list_folder: Callable[[str], list[Source]]) -> list[Source]:
    if arguments.manifest:
        sources = read_manifest(arguments.manifest, arguments.input)
    elif arguments.input:
        sources = list_folder(arguments.input)
    else:
        raise UserError("nothing to build from: give --input=DIR or --manifest=FILE")
    if arguments.exclude:
        kept = exclude(sources, arguments.exclude)
        print(f"{len(sources) - len(kept)} of {len(sources)} files excluded by {arguments.exclude}")
        return kept
    return sources


def _settings(arguments: argparse.Namespace) -> Settings:
    fields = vars(arguments)
    limits = Limits(**{name: fields[name] for name in ("min_seconds", "min_level", "max_clipped")})
    names = ("sample_rate", "record_seconds", "shard_megabytes", "split_by", "valid_fraction", "seed")
    settings = Settings(**{name: fields[name] for name in names}, limits=limits)
    for name in ("sample_rate", "record_seconds", "shard_megabytes", "time_limit"):
        if not fields[name] > 0:
            raise UserError(f"--{name}={fields[name]} must be more than 0")
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers={arguments.workers} must be 1 or more")
    if not 0 <= settings.valid_fraction < 1:
        raise UserError(f"--valid_fraction={settings.valid_fraction} must be at least 0 and less than 1")
    if settings.record_samples < 1:
        raise UserError(f"--record_seconds={settings.record_seconds} is less than one sample")
    return settings


def _portion(text: str) -> Portion:
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 0 <= index < count:
        raise UserError(f"--shard={text} must be i/n with i from 0 to n-1, as 0/4")
    return index, count


def _parser() -> ArgumentParser:
    defaults = Settings()
    parser = ArgumentParser(prog="python -m data_pipelines.build", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--input", metavar="DIR", help="folder of audio files, searched to any depth")
    add("--manifest", metavar="FILE", help=".jsonl or .csv with `path` and, if you like, `id` and `album`")
    add("--exclude", metavar="FILE", help="track ids to leave out, one a line (an evaluation set, say)")
    add("--output", metavar="DATA", required=True, help="folder of the collection")
    add("--sample_rate", type=int, default=defaults.sample_rate, help="Hz (%(default)s)")
    add("--record_seconds", type=float, default=defaults.record_seconds, help="(%(default)s)")
    add("--shard_megabytes", type=float, default=defaults.shard_megabytes, help="(%(default)s)")
    add("--split_by", choices=("track", "album"), default=defaults.split_by, help="album: the file's folder")
    add("--valid_fraction", type=float, default=defaults.valid_fraction, help="held out (%(default)s)")
    add("--seed", type=int, default=defaults.seed, help="of the order and the split (%(default)s)")
    limits = defaults.limits
    add("--min_seconds", type=float, default=limits.min_seconds, help="else too short (%(default)s)")
    add("--min_level", type=float, default=limits.min_level, help="dBFS, else silent (%(default)s)")
    add("--max_clipped", type=float, default=limits.max_clipped, help="share at full scale (%(default)s)")
    add("--workers", type=int, help="processes (one per core)")
    add("--time_limit", type=float, default=60.0, help="seconds without progress on a file (%(default)s)")
    add("--shard", type=_portion, metavar="i/n", help="decode only the i-th of n shares, i from 0")
    add("--beam", action="store_true", help="as a Beam pipeline; other options go to its runner")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
