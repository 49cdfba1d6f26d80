"""Launchers run as real processes, with stand-ins for the programs of the clouds first on their PATH."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
# Imported, not run as a script: so that its compiled form is kept, which makes these many short processes short.
HERE = str(Path(__file__).resolve().parent)
FAKE = f"import sys; sys.path.append({HERE!r}); import launch_fakes; sys.exit(launch_fakes.main())"

# A run that appends its number to a file and ends with the next of the codes it was given; `wait` in their place
# stands for training: it goes on until SIGTERM, which it answers with a checkpoint and 3, or for ever if it is `hang`.
RUN = """
import os, signal, sys, time
from pathlib import Path

starts = Path(sys.argv[1]) / ("starts" + os.environ.get("WORKER", os.environ.get("SLURM_PROCID", os.environ.get(
    "MUSICSSL_PROCESS_ID", "0"))))
number = len(starts.read_text().split()) if starts.exists() else 0
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
with starts.open("a") as lines:
    lines.write(str(number) + "\\n")
each = sys.argv[2].split(",")
what = each[min(number, len(each) - 1)].split("/")
what = what[min(int(starts.name[6:]), len(what) - 1)]
while what == "hang" or (what == "wait" and not asked):
    time.sleep(0.01)
if what == "wait":
    (starts.parent / "saved").touch()
    sys.exit(3)
if what == "abort":
    os.abort()
sys.exit(int(what))
"""


def _heed_ctrl_c() -> None:
    """A shell starts what runs in its background, as this test may do, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Place:
    """A folder in which launchers are run."""

    path: Path

    def play(self, **script) -> None:
        """What the stand-ins should do."""
        (self.path / "script.json").write_text(json.dumps(script))

    def calls(self) -> list[list[str]]:
        file = self.path / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def gcloud(self) -> list[str]:
        """The verbs of the calls, in their order, without repetition in a row."""
        verbs = [call[4] for call in self.calls() if call[0] == "gcloud"]
        return [verb for number, verb in enumerate(verbs) if number == 0 or verbs[number - 1] != verb]

    def command(self, codes: str) -> list[str]:
        """A run by RUN: the codes of one start after the other, and within each of all processes (`2/134,0`)."""
        (self.path / "run.py").write_text(RUN)
        return [sys.executable, "-S", str(self.path / "run.py"), str(self.path), codes]

    def starts(self, process: int = 0) -> int:
        file = self.path / f"starts{process}"
        return len(file.read_text().split()) if file.exists() else 0

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}",
            "LAUNCH_FAKES": str(self.path),
        }

    def start(self, script: str, *argv: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-S", str(LAUNCH / script), *argv],
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
        )

    def launch(self, script: str, *argv: str) -> subprocess.CompletedProcess:
        process = self.start(script, *argv)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(argv, process.returncode, out, err)


def make_place(path: Path) -> Place:
    (path / "bin").mkdir()
    for program in ("gcloud", "kubectl", "sbatch", "srun", "scontrol"):
        file = path / "bin" / program
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E -c "{FAKE}" {program} "$@"\n')
        file.chmod(0o755)
    return Place(path)
