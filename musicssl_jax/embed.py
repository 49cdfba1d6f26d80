"""Features of audio files from a trained encoder, as .npz files or as one data set.

    musicssl embed --checkpoint=RUN --input=DIR --output=OUT --layers=0,6,12 --pool=mean

--pool=mean gives one vector a file and layer, --pool=window one for every --pool_seconds, --pool=none every frame.
--format=npz writes OUT/<path under DIR>.npz with features (layers, n, width), times (n,) in seconds (centres), start
and end (n,), layers (layers,) and sample_rate; parquet and array_record write part files into OUT/data. Several
commands may fill one folder at the same time: each file is done by one of them. See docs/embed.md.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipelines.sources import Source, walk_folder
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.distributed import distributed_flags, join
from musicssl_jax.embedding.embed_files import FORMATS, POOLS, Options, Summary, embed_files, open_writer
from musicssl_jax.embedding.shared_folder import REJECTS, SharedFolder
from musicssl_jax.embedding.windows import default_context
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import UserError
from musicssl_jax.frozen_encoder import FrozenEncoder
from musicssl_jax.parallel import barrier
from musicssl_jax.programs import keep_programs


def main(argv: list[str]) -> None:
    flags = _parser().parse_args(argv)
    if "://" in flags.output:
        raise UserError(f"--output={flags.output}: features are written to local folders; copy the folder from there")
    join(flags.distributed, flags.heartbeat)
    keep_programs()
    sources = find_sources(flags.input)[jax.process_index() :: jax.process_count()]
    encoder = load_encoder(flags.checkpoint, weights=flags.weights, download=flags.download)
    if flags.precision:
        encoder = encoder.with_precision(flags.precision)
    options = _options(flags, encoder)
    output = Path(flags.output).expanduser()
    began = time.monotonic()
    settings = {
        "checkpoint": encoder.name,
        "encoder_sha256": encoder.digest,
        "precision": encoder.precision,
        "weights": flags.weights,
        "format": flags.format,
        **settings_of(options),
    }
    with SharedFolder(output, settings, skip_existing=flags.skip_existing) as folder:
        writer = open_writer(flags.format, folder, encoder, options)
        summary = embed_files(encoder, sources, folder, writer, options)
    barrier("embedded")  # a process that leaves ends the others
    if summary.rejects and len(summary.rejects) == len(sources):
        first = summary.rejects[0]
        raise UserError(
            f"none of the {len(sources)} files of --input could be used; {first['file']}: {first['reason']}, "
            f"{first['detail']} (all are in {output / REJECTS})"
        )
    print(report(summary, encoder, flags.format, options, output, time.monotonic() - began))


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
        for path in dict.fromkeys(map(os.path.abspath, paths))
    ]


def parse_layers(text: str, count: int) -> list[int]:
    """`all`, `last`, or numbers from 0 (the input of the first block) to `count` with commas between."""
    if text in ("all", "last"):
        return list(range(count + 1)) if text == "all" else [count]
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    if not all(0 <= number <= count for number in numbers):
        raise UserError(f"--layers={text}: want all, last, or numbers from 0 to {count} with commas between")
    return numbers


def report(summary: Summary, encoder: FrozenEncoder, form: str, options: Options, output: Path, seconds: float) -> str:
    """One screen: what was made, how fast, where, and what was left out."""
    what = {
        "mean": "means of files",
        "window": f"means of {options.pool_seconds:g} s",
        "none": f"{encoder.sample_rate / encoder.hop:g} frames a second",
    }[options.pool]
    lines = [
        f"encoder   {encoder.name}: layers {','.join(map(str, options.layers))} of 0..{encoder.layers}, "
        f"width {encoder.width}",
        f"features  {summary.embedded} files, {summary.seconds_of_audio / 3600:.2f} h of audio, {what}, "
        f"{summary.bytes_written / 1e6:.1f} MB",
        f"speed     {summary.seconds_of_audio / max(seconds, 1e-9):.0f} x real time ({seconds:.0f} s)",
        f"output    {output}",
    ]
    if summary.skipped:
        lines.append(f"skipped   {summary.skipped} files that had features already")
    if summary.elsewhere:
        lines.append(f"left      {summary.elsewhere} files to other commands that are at work in this folder")
    if summary.rejects:
        lines.append(f"rejected  {len(summary.rejects)} files, see {output / REJECTS}")
    lines.append(READ_ONE[form].format(data=output / "data"))
    return "\n".join(lines)


READ_ONE = {
    "npz": "read one  numpy.load(FILE)['features']  # (layers, n, width); 'times' in seconds",
    "parquet": "read it   pyarrow.parquet.read_table('{data}')  # or pandas.read_parquet",
    "array_record": "read it   tensorflow_datasets.builder_from_directory('{data}').as_data_source('music')",
}


def settings_of(options: Options) -> dict[str, Any]:
    """What decides the features, besides the encoder."""
    settings = {**options._asdict(), "layers": list(options.layers)}
    del settings["per_device"]
    if options.pool != "window":
        del settings["pool_seconds"]
    return settings


def _options(flags: argparse.Namespace, encoder: FrozenEncoder) -> Options:
    context = flags.context_seconds
    options = Options(
        layers=parse_layers(flags.layers, encoder.layers),
        pool="none" if flags.pool == "frame" else flags.pool,
        pool_seconds=flags.pool_seconds,
        dtype=flags.dtype,
        window_seconds=flags.window_seconds,
        context_seconds=default_context(flags.window_seconds) if context is None else context,
        per_device=flags.batch,
    )
    try:
        encoder.window_frames(options.window_seconds, options.context_seconds)
    except ValueError as error:
        raise UserError(f"--window_seconds, --context_seconds: {error}") from None
    return options


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="musicssl embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="run folder, RUN/checkpoints/STEP, transformers folder, fairseq .pt, hf:OWNER/NAME, or "
        "random:CONFIG.py[:VARIANT]",
    )
    parser.add_argument(
        "--weights", choices=("student", "teacher"), default="student", help="of data2vec (default %(default)s)"
    )
    parser.add_argument("--download", action="store_true", help="fetch an hf:OWNER/NAME that is not on this machine")
    parser.add_argument(
        "--input", required=True, nargs="+", action="extend", metavar="PATH", help="a folder of audio, or files"
    )
    parser.add_argument("--output", required=True, metavar="OUT", help="folder of the features")
    parser.add_argument("--format", choices=FORMATS, default="npz", help="default %(default)s")
    parser.add_argument("--layers", default="all", help="all, last, or numbers such as 0,6,12 (default %(default)s)")
    parser.add_argument("--pool", choices=(*POOLS, "frame"), default="mean", help="frame is none (default %(default)s)")
    parser.add_argument(
        "--pool_seconds", type=_seconds(0.01, 3600.0), default=5.0, help="of --pool=window (default %(default)s)"
    )
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default %(default)s")
    parser.add_argument(
        "--window_seconds",
        type=_seconds(1.0, 3600.0),
        default=30.0,
        help="what the encoder sees at once (default %(default)s)",
    )
    parser.add_argument(
        "--context_seconds",
        type=_seconds(0.0, 1800.0),
        help="at either end of a window: seen, then left out (default 2.5, or a sixth of a shorter window)",
    )
    parser.add_argument("--batch", type=_count, help="windows at once on each device (default: 1 on CPUs, else 8)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of matrix products (default: the run's, but float32 on CPUs)",
    )
    parser.add_argument(
        "--skip_existing",
        "--skip-existing",
        action="store_true",
        help="leave files alone that have features already: go on after a stop",
    )
    distributed_flags(parser)
    return parser


def _seconds(lowest: float, highest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not lowest <= (seconds := float(text)) <= highest:
            raise argparse.ArgumentTypeError(f"{text}: want {lowest:g} to {highest:g} seconds")
        return seconds

    return parse


def _count(text: str) -> int:
    if not 1 <= (count := int(text)) <= 4096:
        raise argparse.ArgumentTypeError(f"{text}: want 1 to 4096")
    return count


if __name__ == "__main__":
    sys.exit(run_command(main))
