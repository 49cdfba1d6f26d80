"""benchmarks.tpu: what is wrong is said in one line, before minutes of compiling."""

import pytest

from benchmarks import program, tpu
from musicssl_jax.errors import UserError


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--topology=gpu:1", "--topology=gpu:1: want a TPU's"),
        ("--topology=cpu:1", "--topology=cpu:1: want a TPU's"),
        ("--topology=v9:1x1", "--topology=v9:1x1: want a TPU's"),
        ("--clips=0", "--clips: 0: want a number of clips, at least 1"),
        ("--clips=few", "--clips: few: want a number of clips"),
        ("--seconds=-1", "--seconds: -1: want a number above 0"),
        ("--seconds=nan", "--seconds: nan: want a number above 0"),
        ("--attention_dropout=1.5", "attention_dropout=1.5: must be at least 0 and less than 1"),
        ("--program={tmp}/no/such/file", "--program=.*cannot be written .No such file or directory"),
        ("--program={tmp}", "--program=.*is a folder"),
        ("--results={tmp}/no/such/rows.jsonl", "--results=.*cannot be written"),
        ("--speed=3", "unknown flags: --speed=3"),
    ],
)
def test_bad_input(flag, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        tpu.main(["--results=", flag.format(tmp=tmp_path)])


def test_no_file_is_left_by_looking_whether_one_can_be_written(tmp_path):
    program.check_writable("--program", tmp_path / "program.txt")
    assert list(tmp_path.iterdir()) == []
