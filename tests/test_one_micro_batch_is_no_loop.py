"""A loop of one round makes a TPU's compiler run the loops inside it several times; see docs/speed.md."""

from plan_fixtures import inputs_on

from musicssl_jax.planning.compiled import lower_step


def loops(clips: int, per_device: int) -> int:
    inputs = inputs_on(1, 1, batch__clips=clips, batch__per_device=per_device)
    assert len(inputs.batch["audio"].shape) == 3 and inputs.batch["audio"].shape[0] == clips // per_device
    return lower_step(inputs).as_text().count("stablehlo.while")


def test_one_micro_batch_stands_in_no_loop_and_two_in_one():
    assert loops(4, 2) == loops(2, 2) + 1
