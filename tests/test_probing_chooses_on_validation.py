"""Layers, rates and epochs are chosen by validation; test labels are out of reach of whatever chooses."""

import dataclasses

import numpy as np
import pytest
from probing_fixtures import QUICK, planted, score_on_test, stack
from sklearn.neighbors import KNeighborsRegressor

from musicssl_jax.mir.probing.neighbours import COUNTS, nearest_neighbours
from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID, Problem, blank_test
from musicssl_jax.mir.probing.selection import choose_and_train
from musicssl_jax.mir.probing.training import MIXED, Probe, train_probes


@pytest.mark.parametrize("kind", ["class", "tags", "numbers"])
@pytest.mark.parametrize("network", ["mlp", "linear"])
def test_what_a_layer_knows_is_found_in_that_layer(kind, network):
    problem, truth = planted(kind, knows=(2,), noise=0.1)
    outcome = choose_and_train(problem, QUICK, network)
    assert outcome.layer in ("2", "weighted")
    assert min(score_on_test(problem, truth, answers) for answers in outcome.answers) > 0.95
    assert outcome.grid.shape == (4, len(QUICK.rates))


@pytest.mark.parametrize(("kind", "chance", "off"), [("class", 0.25, 0.2), ("tags", 0.3, 0.2), ("numbers", 0.0, 0.3)])
def test_noise_gives_chance(kind, chance, off):
    problem, truth = planted(kind, knows=())
    outcome = choose_and_train(problem, QUICK, "mlp")
    for answers in outcome.answers:
        assert abs(score_on_test(problem, truth, answers) - chance) < off


def test_a_layer_that_wins_on_test_alone_is_not_chosen():
    """Layer 0 says the label in train and test and nothing in validation; layer 2 is fair everywhere, but noisy."""
    problem, truth = planted("class", knows=(0, 2), noise=1.2, rows=1)
    values = problem.layers.values.copy()
    random = np.random.default_rng(1)
    labels = np.eye(problem.outputs)[truth] @ np.linalg.qr(random.normal(size=(24, 24)))[0][: problem.outputs]
    values[0] = 6 * labels
    values[0, problem.part == VALID] = random.normal(size=(np.sum(problem.part == VALID), 24))
    problem = dataclasses.replace(problem, layers=stack(values))
    outcome = choose_and_train(problem, QUICK, "linear")
    assert outcome.layer != "0"
    on_test_alone = train_probes(problem, [Probe(0, 1e-2, 0)], QUICK, None, keep=False)
    assert on_test_alone.scores[0] < outcome.valid_scores.min()
    assert nearest_neighbours(problem).layer != "0"


def test_halving_is_for_the_choice_alone():
    """Each seed of the chosen probe goes on to its own end, as if no probe had ever been given up."""
    problem, _ = planted("class", knows=(1,), noise=0.8)
    halved, whole = (
        choose_and_train(problem, dataclasses.replace(QUICK, halving=n, seeds=(0, 1, 2, 3, 4)), "linear")
        for n in (3, 0)
    )
    assert (halved.layer, halved.rate) == (whole.layer, whole.rate)  # else the two say nothing of each other
    np.testing.assert_array_equal(halved.valid_scores, whole.valid_scores)
    np.testing.assert_array_equal(halved.answers, whole.answers)


def test_labels_of_test_units_have_to_be_blank():
    problem, truth = planted("class")
    with pytest.raises(ValueError, match="have to be blank"):
        dataclasses.replace(problem, labels=truth)
    with pytest.raises(ValueError, match="no row in part 1"):
        dataclasses.replace(problem, part=np.where(problem.part == VALID, TEST, problem.part), labels=np.full(240, -1))


def test_test_labels_do_not_reach_a_problem():
    part = np.array([TRAIN, VALID, TEST])
    np.testing.assert_array_equal(blank_test(np.array([3, 1, 2]), part, "class"), [3, 1, -1])
    numbers = blank_test(np.array([[1.0], [2.0], [3.0]]), part, "numbers")
    assert numbers[:2, 0].tolist() == [1, 2] and np.isnan(numbers[2, 0])


def test_a_weighted_sum_leans_on_the_layer_that_knows():
    problem, truth = planted("class", layers=4, knows=(3,), noise=1.0)
    settings = dataclasses.replace(QUICK, epochs=60, patience_stop=60, rates=(1e-2,))
    trained = train_probes(problem, [Probe(MIXED, 1e-2, 0)], settings, None, keep=True)
    assert trained.mix.shape == (1, 3)  # of layers 1 to 3
    np.testing.assert_allclose(trained.mix.sum(), 1, rtol=1e-5)
    assert trained.mix[0].argmax() == 2
    assert score_on_test(problem, truth, trained.answers[0]) > 0.9


def test_neighbours_agree_with_scikit_learns():
    problem, truth = planted("numbers", rows=1, noise=2.0, knows=(1,))
    outcome = nearest_neighbours(problem)
    train, valid, test = (problem.part == part for part in (TRAIN, VALID, TEST))

    def theirs(layer, k, asked):
        values = problem.layers.layer(layer).astype(np.float32)
        standard = (values - values[train].mean(axis=0)) / values[train].std(axis=0)
        return KNeighborsRegressor(k, metric="cosine").fit(standard[train], truth[train]).predict(standard[asked])

    scores = [[problem.score(truth[valid], theirs(layer, k, valid)) for k in COUNTS] for layer in range(3)]
    np.testing.assert_allclose(outcome.grid, scores, rtol=1e-4)
    chosen = theirs(int(outcome.layer), int(outcome.rate), test)
    np.testing.assert_allclose(outcome.answers[0, test], chosen, rtol=1e-4, atol=1e-4)


def test_units_without_rows_have_no_answer():
    problem, _ = planted("class", rows=1)
    more = Problem(
        problem.layers,
        problem.unit,
        np.append(problem.part, TEST),
        np.append(problem.labels, -1),
        "class",
        problem.outputs,
        problem.score,
    )
    trained = train_probes(more, [Probe(1, 1e-2, 0)], QUICK, None, keep=True)
    answered = np.isfinite(trained.answers[0]).all(axis=1)
    has_rows = np.arange(len(more.part)) < len(problem.part)
    np.testing.assert_array_equal(answered, (more.part != TRAIN) & has_rows)
