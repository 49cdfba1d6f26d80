"""Made-up results of tasks: of every kind, with outputs that the scores follow from."""

import dataclasses

import numpy as np

from musicssl_jax.mir.metrics import main_score, per_track_f, score
from musicssl_jax.mir.report.results import Chosen, ProbedEncoder, TaskResult
from musicssl_jax.mir.tasks.catalogue import TASKS


def made_up_result(
    task: str,
    name: str = "ours",
    *,
    skill: float = 1.0,
    units: int = 40,
    groups: int = 20,
    seeds: int = 3,
    layers: int = 3,
    kind: str = "checkpoint",
    seed: int = 0,
    **changed,
) -> TaskResult:
    """`skill`: how far the outputs follow the truth. The truth and the units are the same for the same `units`."""
    spec, truth_rng = TASKS[task], np.random.default_rng(1)
    noise = np.random.default_rng(seed + 2)
    names = [str(i) for i in range(layers)] + (["weighted"] if layers > 2 else [])
    shape = (seeds, units, len(spec.outputs))
    arrays = {}
    if spec.kind == "class":
        arrays["truth"] = truth_rng.integers(len(spec.outputs), size=units)
        target = np.eye(len(spec.outputs))[arrays["truth"]]
    elif spec.kind == "tags":
        arrays["truth"] = truth_rng.random(shape[1:]) < 0.3
        target = arrays["truth"].astype(float)
    elif spec.kind == "numbers":
        arrays["truth"] = target = truth_rng.normal(size=shape[1:])
    if spec.kind == "beats":
        beats = [np.arange(5.5, 15, 0.5)] * units
        found = [[b + noise.normal(scale=0.1 / skill, size=b.shape) for b in beats] for _ in range(seeds)]
        arrays["f"] = np.array([per_track_f(beats, [np.sort(b) for b in tracks]) for tracks in found])
        scores = [{"f_measure": float(f.mean())} for f in arrays["f"]]
    else:
        arrays["outputs"] = skill * target + noise.normal(size=shape) * (0.5 if spec.kind == "numbers" else 1)
        scores = [score(spec, arrays["truth"], outputs) for outputs in arrays["outputs"]]
        assert np.isclose(main_score(spec, arrays["truth"], arrays["outputs"][0]), scores[0][spec.metric])
    confusion = None
    if spec.kind == "class":
        confusion = np.zeros((len(spec.outputs),) * 2, int)
        np.add.at(confusion, (arrays["truth"], arrays["outputs"][0].argmax(axis=1)), 1)
        confusion = confusion.tolist()
    network = {metric: tuple(s[metric] for s in scores) for metric in scores[0]}
    weights = noise.random(layers - 1)
    result = TaskResult(
        task=task,
        protocol="ours",
        protocol_id="ours-1-30s",
        split_sha256="5" * 64,
        counts={"train": 80, "valid": 20, "test": units},
        encoder=ProbedEncoder(name, kind, "e" * 64, 1 if kind == "checkpoint" else None),
        seeds=tuple(range(seeds)),
        scores={"mlp": network, "linear": network, "knn": {metric: s[:1] for metric, s in network.items()}},
        recording=np.array([f"song {i}" for i in range(units)]),
        group=np.array([f"singer {i % groups}" for i in range(units)]),
        chosen={
            "mlp": Chosen(names[-1], 1e-3, 0.8),
            "knn": Chosen("0", None, 0.6),
        },
        layer_names=tuple(names),
        layer_scores_valid={"mlp": tuple(noise.random(len(names))), "knn": tuple(noise.random(layers))},
        layer_weights=tuple(weights / weights.sum()) if layers > 2 else None,
        confusion=confusion,
        versions={"jax": "0.10.2"},
        seconds=12.5,
        notes=("a note of the task",),
        **arrays,
    )
    return dataclasses.replace(result, **changed)
