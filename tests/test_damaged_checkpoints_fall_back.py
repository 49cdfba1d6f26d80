"""Whatever happens to one file of the newest checkpoint, training goes on from an exact state."""

import hashlib
import re
import shutil

import jax
import jax.numpy as jnp
import pytest
from checkpoint_fixtures import META, abstract, assert_same, policy, restore, save_steps, tiny_state

from musicssl_jax.errors import UserError
from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.file_hashes import COMMIT_FILES, SUMS


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    save_steps(folder, 1, 2)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def flip(file, position: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(bytes(data))


def damages(size: int):
    """Flipped bits over the whole file, cut short, emptied, gone."""
    for i in range(6):
        yield lambda file, i=i: flip(file, (size - 1) * i // 5, (3 * i + size) % 8)
    yield lambda file: file.write_bytes(file.read_bytes()[: size // 2])
    yield lambda file: file.write_bytes(b"")
    yield lambda file: file.unlink()


def test_damage_to_any_one_file_gives_the_newest_or_the_one_before_exactly(saved, tmp_path, capsys):
    files = sorted(file.relative_to(saved) for file in (saved / "2").rglob("*") if file.is_file())
    assert len(files) > 10
    fell_back = 0
    for name in files:
        for i, damage in enumerate(damages((saved / name).stat().st_size)):
            folder = shutil.copytree(saved, tmp_path / f"{name.name}-{i}")
            damage(folder / name)
            state, meta = restore(folder)
            step = int(state.step)
            assert step in (1, 2), (name, i)
            assert_same(state, tiny_state(step))
            assert meta == META
            said = capsys.readouterr().err
            assert (folder / "damaged-2").exists() == (step == 1)
            if step == 1:
                fell_back += 1
                assert re.fullmatch(r"checkpoint 2 .* damaged .* from checkpoint 1; .*\n", said), said
            else:
                # What Orbax writes at the commit says nothing about the state; shorter sums check less.
                assert name.name in (*COMMIT_FILES, SUMS), (name, i)
                assert not said
            shutil.rmtree(folder)
    assert fell_back > 7 * len(files)


def test_the_damaged_step_can_be_saved_again(folder):
    flip(folder / "2" / SUMS, 0, 0)
    checkpoints = open_checkpoints(folder, policy())
    assert int(checkpoints.restore(abstract(tiny_state(0)))[0].step) == 1
    checkpoints.save(2, tiny_state(2), META)
    checkpoints.close()
    assert int(restore(folder)[0].step) == 2
    assert (folder / "damaged-2").is_dir()


def test_an_unfinished_folder_is_passed_over(folder, capsys):
    (folder / "3" / "state").mkdir(parents=True)
    assert int(restore(folder)[0].step) == 2
    assert f"checkpoint 3 in {folder} is damaged" in capsys.readouterr().err


def test_damage_that_file_hashes_cannot_know_is_seen_by_the_leaf_checksums(folder, capsys):
    """A wrong byte that was written, hashed and restored without an error: as if it fell in memory."""
    other = open_checkpoints(folder.with_name("other"), policy())
    state = tiny_state(2)
    one_bit_off = jax.tree.map(lambda x: x.at[1, 2].set(jnp.nextafter(x[1, 2], 0.0)), state.teacher)
    other.save(2, state._replace(teacher=one_bit_off), META)
    other.close()
    meta = (folder / "2" / "meta" / "metadata").read_bytes()
    shutil.rmtree(folder / "2")
    shutil.copytree(folder.with_name("other") / "2", folder / "2")
    (folder / "2" / "meta" / "metadata").write_bytes(meta)
    rehash(folder / "2")
    assert int(restore(folder)[0].step) == 1
    assert "teacher/conv/0/kernel" in capsys.readouterr().err


def rehash(path) -> None:
    names = [line.split("  ")[1] for line in (path / SUMS).read_text().splitlines()]
    (path / SUMS).write_text(
        "".join(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    )


def test_with_all_damaged_nothing_is_touched_and_the_user_is_told(folder):
    for step in "12":
        flip(folder / step / SUMS, 0, 0)
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
        restore(folder)
    assert sorted(folder.rglob("*")) == before


def test_damaged_bookkeeping_of_an_old_checkpoint_does_not_lose_the_others(folder):
    file = folder / "1" / "_CHECKPOINT_METADATA"
    file.write_bytes(file.read_bytes().replace(b"timestamp", b"timestamq"))
    assert int(restore(folder)[0].step) == 2
    assert not list(folder.glob("damaged*"))
