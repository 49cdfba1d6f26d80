"""`musicssl doctor` runs on any machine and tells what is there, what is not, and what that is for."""

import subprocess
import sys

import soundfile

from musicssl_jax import doctor


def test_one_screen_with_devices_versions_memory_and_codecs(capsys):
    doctor.main([])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 24
    for words in ("python ", "memory ", "disk ", "jax 0.", "orbax-checkpoint 0.", "x cpu", "WAV, FLAC, MP3"):
        assert words in shown
    assert soundfile.__libsndfile_version__ in shown


def test_what_is_missing_is_named_with_its_purpose_and_its_remedy():
    program = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('jax', 'soundfile'): raise ModuleNotFoundError(f'No module {name}')\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from musicssl_jax import doctor\n"
        "doctor.OPTIONAL = {'no_such_decoder': ('decoding m4a', 'av')}\n"
        "doctor.main([])\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert "devices    none: ModuleNotFoundError: No module jax" in shown.stdout
    assert "audio      none: No module soundfile" in shown.stdout
    assert "without    no_such_decoder decoding m4a: pip install 'musicssl_jax[av]'" in shown.stdout
