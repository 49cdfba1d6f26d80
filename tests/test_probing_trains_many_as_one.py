"""Probes that are trained side by side are those that would have been trained alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probing_fixtures import QUICK, planted

from musicssl_jax.mir.probing import feed, training
from musicssl_jax.mir.probing.network import answer, init_probe, loss_of
from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID
from musicssl_jax.mir.probing.settings import LARGE_ROWS, MARBLE_PATIENCE, for_size, settings_for
from musicssl_jax.mir.probing.training import MIXED, Probe, train_probes
from musicssl_jax.mir.tasks.catalogue import TASKS

PROBES = [Probe(layer, rate, seed) for layer in (0, 1, 2) for rate in (1e-3, 3e-2) for seed in (5, 6)]
# Two programs that add up in other orders; over some epochs Adam makes more of it.
SAME = {"rtol": 2e-4, "atol": 2e-5}


@pytest.mark.parametrize("kind", ["class", "numbers"])
def test_together_or_alone_is_the_same(kind):
    problem, _ = planted(kind)
    together = train_probes(problem, PROBES, QUICK, 16, keep=True)
    for number in (0, 3, 10):
        alone = train_probes(problem, [PROBES[number]], QUICK, 16, keep=True)
        np.testing.assert_allclose(together.losses[number], alone.losses[0], **SAME)
        np.testing.assert_allclose(together.answers[number], alone.answers[0], **SAME)
        assert together.epochs[number] == alone.epochs[0]
        assert together.best_epoch[number] == alone.best_epoch[0]


def test_groups_of_an_accelerator_are_the_same(monkeypatch):
    """CPUs train probes one after the other in the program; elsewhere a group is vectorised."""
    problem, _ = planted("class")
    one_by_one = train_probes(problem, PROBES, QUICK, 16, keep=True)
    monkeypatch.setattr(training, "probes_at_once", lambda: 5)
    in_groups = train_probes(problem, PROBES, QUICK, 16, keep=True)
    np.testing.assert_allclose(one_by_one.answers, in_groups.answers, **SAME)
    np.testing.assert_array_equal(one_by_one.epochs, in_groups.epochs)


@pytest.mark.parametrize("probes", [PROBES[:4], [Probe(MIXED, 1e-2, 1), Probe(MIXED, 1e-3, 2)]])
def test_chunks_do_not_change_batches(probes, monkeypatch):
    """Without dropout, whose masks go by chunk and batch."""
    problem, _ = planted("class", units=300)
    still = dataclasses.replace(QUICK, dropout=0.0, epochs=6)
    whole = train_probes(problem, probes, still, 16, keep=True)
    monkeypatch.setattr(feed, "CHUNK_BYTES", 70 * 24 * 2)
    in_pieces = train_probes(problem, probes, still, 16, keep=True)
    np.testing.assert_allclose(whole.losses, in_pieces.losses, **SAME)
    np.testing.assert_allclose(whole.answers, in_pieces.answers, **SAME)


def test_the_same_command_gives_the_same_numbers():
    problem, _ = planted("tags")
    first, again = (train_probes(problem, PROBES[:3], QUICK, 16, keep=True) for _ in range(2))
    np.testing.assert_array_equal(first.answers, again.answers)
    np.testing.assert_array_equal(first.losses, again.losses)


def test_stopping_and_rates_follow_the_plain_loop():
    """Of one linear probe without dropout, written out: batches, Adam, plateau, end."""
    problem, _ = planted("class", noise=2.5, rows=1)
    settings = dataclasses.replace(QUICK, dropout=0.0, epochs=40, patience_rate=1, patience_stop=5)
    probe = Probe(1, 3e-2, 4)
    trained = train_probes(problem, [probe], settings, None, keep=True)
    scores, losses = _plain_loop(problem, probe, settings)
    assert trained.epochs[0] == len(scores) < settings.epochs
    np.testing.assert_allclose(trained.losses[0, : len(losses)], losses, rtol=1e-3)
    assert trained.scores[0] == pytest.approx(max(scores))
    assert trained.best_epoch[0] == int(np.argmax(scores))


def _plain_loop(problem, probe, settings):
    values = problem.layers.layer(probe.layer).astype(np.float32)
    train = np.flatnonzero(problem.part == TRAIN)
    values = (values - values[train].mean(axis=0)) / values[train].std(axis=0)
    params = init_probe(probe.seed, values.shape[1], None, problem.outputs, 0)
    adam = optax.scale_by_adam()
    moments = adam.init(params)

    def loss(params, rows):
        logits = answer(params, jnp.asarray(values[rows]))
        return loss_of("class", logits, jnp.asarray(problem.labels[rows]), jnp.ones(len(rows)))

    rate, stale, scores, losses = probe.rate, 0, [], []
    for epoch in range(settings.epochs):
        order = np.random.default_rng([probe.seed, epoch]).permutation(train)
        batches = [order[first : first + settings.batch] for first in range(0, len(order), settings.batch)]
        of_batches = []
        for rows in batches:
            value, gradients = jax.value_and_grad(loss)(params, rows)
            updates, moments = adam.update(gradients, moments)
            params = jax.tree.map(lambda p, u, rate=rate: p - rate * u, params, updates)
            of_batches.append(float(value))
        losses.append(np.mean(of_batches))
        valid = problem.part == VALID
        logits = np.asarray(answer(params, jnp.asarray(values[valid])))
        score = float(np.mean(logits.argmax(axis=1) == problem.labels[valid]))
        stale = 0 if not scores or score > max(scores) * (1 + 1e-4) else stale + 1
        scores.append(score)
        if stale > settings.patience_rate:
            rate, stale = rate / 2, 0
        if epoch - int(np.argmax(scores)) >= settings.patience_stop:
            break
    return scores, losses


def test_answers_are_those_of_the_best_epoch():
    problem, _ = planted("class", noise=2.5)
    probes = [Probe(1, 3e-2, 1), Probe(1, 3e-3, 2)]
    whole = train_probes(problem, probes, QUICK, 16, keep=True)
    assert (whole.best_epoch + 1 < whole.epochs).all()
    for number, probe in enumerate(probes):
        ended = dataclasses.replace(QUICK, epochs=int(whole.best_epoch[number]) + 1)
        short = train_probes(problem, [probe], ended, 16, keep=True)
        np.testing.assert_allclose(whole.answers[number], short.answers[0], **SAME)


def test_halving_gives_up_the_worse_half():
    problem, _ = planted("class", knows=(1,))
    halved = train_probes(problem, PROBES, dataclasses.replace(QUICK, halving=2), 16, keep=False)
    first = np.sort(halved.epochs)
    assert (first[:6] == 1).all() and (first[6:9] == 2).all() and (first[9:] > 2).all()
    assert all(PROBES[number].layer == 1 for number in np.flatnonzero(halved.epochs > 2))


def test_a_probe_that_diverges_is_never_the_best():
    problem, _ = planted("numbers")
    trained = train_probes(problem, [Probe(1, 1e-2, 0), Probe(1, 1e30, 0)], QUICK, 16, keep=True)
    assert np.isfinite(trained.scores[0]) and trained.scores[1] == -np.inf
    of_test = trained.answers[:, problem.part == TEST]
    assert np.isfinite(of_test[0]).all() and np.isnan(of_test[1]).all()


def test_a_large_task_has_settings_of_its_own():
    small, large = (for_size(settings_for("ours"), rows) for rows in (LARGE_ROWS, LARGE_ROWS + 1))
    assert (small.batch, small.halving) == (64, 0) and large.batch > 64 and large.halving > 0
    theirs = settings_for("marble-v1")
    assert for_size(theirs, 10**6) == theirs and theirs.batch == 64 and not theirs.standardise


def test_marbles_patience_is_that_of_its_configs():
    assert set(MARBLE_PATIENCE) < set(TASKS)
    key, genre = (settings_for("marble-v1", task=task) for task in ("giantsteps_key", "gtzan_genre"))
    ours = settings_for("ours", task="giantsteps_key")
    assert [(s.patience_rate, s.patience_stop) for s in (key, genre, ours)] == [(5, 20), (6, 20), (3, 10)]
