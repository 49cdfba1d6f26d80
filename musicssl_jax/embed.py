"""Features of audio files from a trained encoder: one .npz a file.

    musicssl embed --checkpoint=RUN --input=DIR --output=OUT --layers=0,6,12 --pool=mean

Each OUT/<path under DIR>.npz holds features (layers, n, width), times (n,) in seconds (centres), layers (layers,)
and sample_rate. n counts frames (--pool=none) or windows (--pool=mean).
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.decode import Decoded, Limits, Rejected, decode_track
from data_pipelines.pool import Died, WorkerPool
from data_pipelines.sources import Source, walk_folder
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import UserError
from musicssl_jax.frozen_encoder import FrozenEncoder
from musicssl_jax.shapes import Float

DECODE_TIME_LIMIT = 60.0  # seconds without progress
DECODED_AHEAD = 4  # files that wait, decoded, on the disk
REJECTS = "rejects.jsonl"


@dataclass
class Summary:
    """What became of the files."""

    embedded: int = 0
    skipped: int = 0
    seconds_of_audio: float = 0.0
    bytes_written: int = 0
    rejects: list[dict[str, str]] = field(default_factory=list)


def main(argv: list[str]) -> None:
    flags = _parser().parse_args(argv)
    sources = find_sources(flags.input)
    encoder = load_encoder(flags.checkpoint)
    layers = parse_layers(flags.layers, encoder.layers)
    output = Path(flags.output).expanduser()
    _make_folder(output)
    began = time.monotonic()
    summary = embed_files(
        encoder,
        sources,
        output,
        layers=layers,
        pool=flags.pool,
        dtype=flags.dtype,
        window_seconds=flags.window_seconds,
        skip_existing=flags.skip_existing,
    )
    if summary.rejects and not summary.embedded + summary.skipped:
        first = summary.rejects[0]
        raise UserError(
            f"none of the {len(sources)} files of --input could be used; {first['file']}: {first['reason']}, "
            f"{first['detail']} (all are in {output / REJECTS})"
        )
    print(report(summary, encoder, layers, flags.pool, output, time.monotonic() - began))


def embed_files(
    encoder: FrozenEncoder,
    sources: Sequence[Source],
    output: Path,
    *,
    layers: Sequence[int],
    pool: str,
    dtype: str,
    window_seconds: float,
    skip_existing: bool = False,
) -> Summary:
    """Writes one .npz for each source that can be decoded, and `rejects.jsonl` for the others.

    Raises UserError where `output` cannot be written.
    """
    summary = Summary()
    wanted = [s for s in sources if not (skip_existing and _target(output, s).is_file())]
    summary.skipped = len(sources) - len(wanted)
    with tqdm(total=len(wanted), unit="file", disable=None) as bar:
        for source, decoded, pcm in _decode_ahead(wanted, encoder.sample_rate, encoder.receptive_field):
            bar.update()
            if isinstance(decoded, Rejected):
                reject = {"file": source.path, "reason": decoded.reason, "detail": decoded.detail}
                summary.rejects.append(reject)
                tqdm.write(f"{source.path}: {decoded.reason}, {decoded.detail}", file=sys.stderr)
                continue
            features, times = embed_track(encoder, pcm, decoded, layers, pool, window_seconds)
            path = _target(output, source)
            _write(path, features.astype(dtype), times, layers, encoder.sample_rate)
            summary.embedded += 1
            summary.seconds_of_audio += decoded.samples / encoder.sample_rate
            summary.bytes_written += path.stat().st_size
    _write_rejects(output, summary.rejects)
    return summary


def embed_track(
    encoder: FrozenEncoder,
    pcm: np.ndarray,
    decoded: Decoded,
    layers: Sequence[int],
    pool: str,
    window_seconds: float,
) -> tuple[Float[np.ndarray, "layers n width"], Float[np.ndarray, " n"]]:
    """Features and their times of a track: every frame, or the mean over the frames of every window."""
    parts, times = [], []
    for first, hidden in encoder.windows(pcm, mean=decoded.mean, std=decoded.std, window_seconds=window_seconds):
        hidden = hidden[list(layers)]
        centres = encoder.times(first + hidden.shape[1])[first:]
        mean = pool == "mean"
        parts.append(hidden.mean(axis=1, keepdims=True) if mean else hidden)
        times.append(centres.mean(keepdims=True) if mean else centres)
    return np.concatenate(parts, axis=1), np.concatenate(times)


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """The audio files of a folder, or the files that are named (taken from their common folder).

    Raises UserError: nothing there, or a folder among several inputs.
    """
    paths = [os.path.expanduser(path) for path in inputs]
    if len(paths) == 1 and not os.path.isfile(paths[0]):
        return walk_folder(paths[0])
    for path in paths:
        if not os.path.isfile(path):
            raise UserError(f"--input={path} is no file; give one folder, or files")
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [
        Source(os.path.relpath(os.path.abspath(path), root), path, album="", size=-1, modified=-1)
        for path in dict.fromkeys(paths)
    ]


def parse_layers(text: str, count: int) -> list[int]:
    """`all`, `last`, or numbers from 0 (the input of the first block) to `count` with commas between."""
    if text in ("all", "last"):
        return list(range(count + 1)) if text == "all" else [count]
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    if not all(0 <= number <= count for number in numbers):
        raise UserError(f"--layers={text}: want all, last, or numbers from 0 to {count} with commas between")
    return numbers


def report(
    summary: Summary, encoder: FrozenEncoder, layers: Sequence[int], pool: str, output: Path, seconds: float
) -> str:
    """One screen: what was made, how fast, where, and what was left out."""
    what = "means of windows" if pool == "mean" else f"{encoder.sample_rate / encoder.hop:g} frames a second"
    lines = [
        f"encoder   {encoder.name}: layers {','.join(map(str, layers))} of 0..{encoder.layers}, width {encoder.width}",
        f"features  {summary.embedded} files, {summary.seconds_of_audio / 3600:.2f} h of audio, {what}, "
        f"{summary.bytes_written / 1e6:.1f} MB",
        f"speed     {summary.seconds_of_audio / max(seconds, 1e-9):.0f} x real time ({seconds:.0f} s)",
        f"output    {output}",
    ]
    if summary.skipped:
        lines.append(f"skipped   {summary.skipped} files that had features already")
    if summary.rejects:
        lines.append(f"rejected  {len(summary.rejects)} files, see {output / REJECTS}")
    lines.append("read one  numpy.load(FILE)['features']  # (layers, n, width); 'times' in seconds")
    return "\n".join(lines)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="musicssl embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", required=True, help="run folder, RUN/checkpoints/STEP, or random:CONFIG.py[:VARIANT]"
    )
    parser.add_argument(
        "--input", required=True, nargs="+", action="extend", metavar="PATH", help="a folder of audio, or files"
    )
    parser.add_argument("--output", required=True, metavar="OUT", help="folder of the .npz files")
    parser.add_argument("--layers", default="all", help="all, last, or numbers such as 0,6,12 (default %(default)s)")
    parser.add_argument("--pool", choices=("mean", "none"), default="mean", help="default %(default)s")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default %(default)s")
    parser.add_argument("--window_seconds", type=_seconds, default=30.0, help="default %(default)s")
    parser.add_argument("--skip_existing", action="store_true", help="leave files alone that have features already")
    return parser


def _seconds(text: str) -> float:
    if not 1 <= (seconds := float(text)) <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: want 1 to 3600 seconds")
    return seconds


def _decode_ahead(
    sources: Sequence[Source], sample_rate: int, min_samples: int
) -> Iterator[tuple[Source, Decoded | Rejected, np.ndarray]]:
    """Each source with its PCM16 samples, in the order in which worker processes have decoded them."""
    limits = Limits(min_seconds=min_samples / sample_rate, min_level=-np.inf, max_clipped=1.0)
    waiting = enumerate(sources)
    pending: dict[Hashable, tuple[Source, Path]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="musicssl-embed-") as folder,
        WorkerPool(workers=min(2, os.cpu_count() or 1), time_limit=DECODE_TIME_LIMIT) as workers,
    ):

        def submit(count: int) -> None:
            for number, source in itertools.islice(waiting, count):
                pending[number] = source, Path(folder, f"{number}.pcm")
                workers.submit(number, decode_track, source.path, pending[number][1], sample_rate, limits)

        submit(DECODED_AHEAD)
        while workers.busy:
            number, decoded = workers.next()
            submit(1)
            source, pcm = pending.pop(number)
            if isinstance(decoded, Died):
                reason = "hangs its decoder" if decoded.hung else "crashes its decoder"
                decoded = Rejected(reason, decoded.detail)
            usable = isinstance(decoded, Decoded)
            samples = np.fromfile(pcm, "<i2") if usable else np.zeros(0, np.int16)
            pcm.unlink(missing_ok=True)
            yield source, decoded, samples


def _target(output: Path, source: Source) -> Path:
    # The suffix stays, since a.wav and a.mp3 may lie side by side.
    return output / f"{source.track}.npz"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output={folder} cannot be written: {error.strerror}") from None


def _write(path: Path, features: np.ndarray, times: np.ndarray, layers: Sequence[int], sample_rate: int) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, features=features, times=times, layers=np.array(layers), sample_rate=sample_rate)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; --skip_existing goes on from here") from None


def _write_rejects(output: Path, rejects: Sequence[dict[str, str]]) -> None:
    path = output / REJECTS
    path.unlink(missing_ok=True)
    if rejects:
        path.write_text("".join(json.dumps(row) + "\n" for row in rejects))


if __name__ == "__main__":
    sys.exit(run_command(main))
