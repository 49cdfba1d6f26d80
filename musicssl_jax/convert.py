"""`python -m musicssl_jax.convert`: models between runs of ours, transformers folders and fairseq files.

    musicssl convert --input=RUN --to=transformers --output=FOLDER       for everyone who works in PyTorch
    musicssl convert --input=hubert_base.pt --to=jax --output=RUN        a folder that other commands take as a run
    musicssl convert --input=hf:OWNER/NAME --download --to=jax --output=RUN

What --input is shows by itself: a run's folder, one of its checkpoints (RUN/checkpoints/STEP), a transformers folder,
a fairseq .pt, or a name on the Hugging Face hub, which is fetched only with --download. The output is read back and
compared with what was read, tensor by tensor. Reading and writing .pt files needs PyTorch, nothing else does.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError, shortened
from musicssl_jax.interop.fairseq_file import write_fairseq
from musicssl_jax.interop.pretrained import Pretrained
from musicssl_jax.interop.reading import read_pretrained, transformers_folder_of
from musicssl_jax.interop.runs import write_run
from musicssl_jax.interop.transformers_folder import write_transformers
from musicssl_jax.interop.verify import LARGEST_DIFFERENCE, check_comparable, checksum, differences, differing

VERIFY_SECONDS = 5
NOT_EQUAL = 1
"""Exit code of a conversion whose --verify found a difference: the output is there and should not be trusted."""


def main(argv: list[str]) -> int:
    flags = _parser().parse_args(argv)
    output = Path(flags.output).expanduser().absolute()
    if "://" in flags.output:
        raise UserError(f"--output={flags.output}: models are written to local folders; copy the folder from there")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output={flags.output} is there already: choose another, or remove it")
    if flags.to != "transformers" and (flags.scores or flags.license):
        raise UserError("--scores and --license are for the model card that --to=transformers writes")
    model = read_pretrained(
        flags.input, download=flags.download, clusters=flags.clusters, dictionary_rows=flags.dictionary_rows
    ).with_weights(flags.weights)
    waveform = None
    if flags.verify:  # what it needs is looked for before anything is written
        check_comparable(model)
        waveform = verify_waveform(flags.audio, model.config.data.sample_rate)
    notes = [*model.notes, *_write(model, output, flags)]
    back = read_pretrained(str(output), clusters=flags.clusters, dictionary_rows=flags.dictionary_rows)
    if wrong := differing(model, back):
        raise RuntimeError(f"{output} was written and reads back differently: {shortened(wrong)}")
    print(report(model, flags.input, output, flags.to, flags.weights, notes))
    return 0 if waveform is None else _verify(model, output, flags, waveform)


def _write(model: Pretrained, output: Path, flags: argparse.Namespace) -> list[str]:
    if flags.to == "jax":
        return write_run(model, output)
    if flags.to == "fairseq":
        return write_fairseq(model, output)
    return write_transformers(model, output, license=_licence(flags.license), scores=_scores(flags.scores))


def _licence(given: str | None) -> str:
    """As the flag says it; asked for where somebody sits at the terminal; never guessed."""
    if given is None and sys.stdin is not None and sys.stdin.isatty():
        given = input("licence of this model, for its card (such as cc-by-4.0; empty: leave it open): ")
    return (given or "").strip()


def _scores(file: str | None) -> dict[str, float]:
    if file is None:
        return {}
    try:
        scores: Any = json.loads(Path(file).expanduser().read_text())
        return {str(task): float(value) for task, value in scores.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--scores={file} is no JSON object of numbers by task: {error}") from None


def _verify(model: Pretrained, output: Path, flags: argparse.Namespace, waveform: np.ndarray) -> int:
    """Prints how far each hidden state is from transformers'; the exit code."""
    folder, ours = None, model
    if flags.to == "transformers":
        folder = output
    elif flags.weights == "student" and (folder := transformers_folder_of(flags.input)):
        ours = read_pretrained(str(output))
    compared = differences(ours, folder, waveform)
    for name, difference in compared:
        print(f"  {name:16} {difference:.1e} of its largest value")
    worst = float(np.max([difference for _, difference in compared]))  # NaN where there is one, which is not equal
    equal = worst < LARGEST_DIFFERENCE
    print(
        f"verify    {'equal' if equal else 'NOT EQUAL'}: largest difference {worst:.1e}, allowed {LARGEST_DIFFERENCE:g}"
    )
    return 0 if equal else NOT_EQUAL


def verify_waveform(file: str | None, sample_rate: int) -> np.ndarray:
    """The first seconds of an audio file, or of a synthetic track; mono float32."""
    if file is None:
        from data_pipelines.musicbox import render_track

        return render_track(0, "additive", seconds=float(VERIFY_SECONDS), sample_rate=sample_rate)[0]
    from data_pipelines.decode import Limits, Rejected, decode_track

    with tempfile.TemporaryDirectory(prefix="musicssl-convert-") as scratch:
        pcm = Path(scratch, "audio.pcm")
        decoded = decode_track(file, pcm, sample_rate, Limits(min_seconds=1.0), lambda _: None)
        if isinstance(decoded, Rejected):
            raise UserError(f"--audio={file}: {decoded.reason}, {decoded.detail}")
        return np.fromfile(pcm, "<i2", VERIFY_SECONDS * sample_rate).astype(np.float32) / 32768


def report(model: Pretrained, source: str, output: Path, to: str, weights: str, notes: list[str]) -> str:
    """One screen: what was read, what was written, what to know of it."""
    config = model.config.model
    size = sum(value.size for value in model.params.values())
    parts = ["encoder", *(part for part in ("head", "label_embeddings", "regression") if _has(model, part))]
    parts += [f"{len(model.teacher)} tensors of the teacher"] if model.teacher else []
    parts += [f"{len(model.codebooks)} codebooks"] if model.codebooks else []
    came_from = "" if model.origin.kind == "run" else f" ({model.origin.kind}: {model.origin.where})"
    lines = [
        f"read      {source}{came_from}",
        f"model     {model.config.objective}, {config.layers} blocks of width {config.width}, {size / 1e6:.2f}M "
        f"parameters" + (f", {model.step} updates" if model.step else ""),
        f"holds     {', '.join(parts)}" + (f"; the {weights}'s encoder" if weights != "student" else ""),
        f"wrote     {output} ({to}); read back, {len(model.params) + len(model.teacher)} arrays are equal bit for bit",
        f"checksum  {checksum(model)} of names and shapes",
    ]
    return "\n".join(lines + [f"note      {note}" for note in notes])


def _has(model: Pretrained, part: str) -> bool:
    return any(name.split("/")[0] == part for name in model.params)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="musicssl convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="a run, a checkpoint, a transformers folder, .pt, hf:OWNER/NAME")
    parser.add_argument("--output", required=True, help="folder, or .pt file, that is not there yet")
    parser.add_argument("--to", required=True, choices=("jax", "transformers", "fairseq"))
    parser.add_argument(
        "--weights",
        choices=("student", "teacher"),
        default="student",
        help="whose encoder to write (default %(default)s)",
    )
    parser.add_argument("--verify", action="store_true", help="run audio through both sides; needs torch, transformers")
    parser.add_argument("--audio", metavar="FILE", help="for --verify; otherwise synthetic music")
    parser.add_argument("--license", metavar="ID", help="for the model card; without it, asked for or left open")
    parser.add_argument("--scores", metavar="JSON", help="scores by task, for the model card")
    parser.add_argument("--download", action="store_true", help="fetch an hf:OWNER/NAME that is not on this machine")
    parser.add_argument(
        "--clusters",
        type=_numbers,
        default=(),
        metavar="K[,K]",
        help="clusters of a .pt's label sets, if it is silent",
    )
    parser.add_argument(
        "--dictionary_rows", type=_rows, metavar="N", help="rows before each label set of a .pt that are no clusters"
    )
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: want numbers from 1 with commas between")
    return numbers


def _rows(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: want a number of rows, such as 4")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
