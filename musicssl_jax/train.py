"""`python -m musicssl_jax.train`: pre-trains an encoder. The same command again resumes.

    python -m musicssl_jax.train --config=configs/music2vec.py --config.data.path=DATA --workdir=RUN

DATA is what `data_pipelines.build` made, or a folder of audio, which is built once into the cache. The run's
folder holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and report.html. Of several processes, each runs
this command (docs/pods.md). Exit codes: 0 done, 2 the input is at fault, 3 stopped by a signal with a checkpoint, 4
diverged or collapsed with a checkpoint, 134 another process was lost.
"""

import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epath

from musicssl_jax import STARTED
from musicssl_jax.command import run_command
from musicssl_jax.config import load, run_flags, to_json
from musicssl_jax.config_checks import check_kernel
from musicssl_jax.distributed import join
from musicssl_jax.errors import DIVERGED, PREEMPTED, TrainingStopped
from musicssl_jax.flops import update_flops
from musicssl_jax.host_memory import keep_memory
from musicssl_jax.models.objective import make_objective
from musicssl_jax.parallel import make_mesh
from musicssl_jax.programs import keep_programs
from musicssl_jax.signals import ANOTHER, stop_signals
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.collapse import CollapseWatch
from musicssl_jax.training.diagnostics import make_diagnose
from musicssl_jax.training.ledger import Ledger, speed
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.outlook import outlook
from musicssl_jax.training.state import parameter_count
from musicssl_jax.training.step import (
    STOP,
    abstract_state,
    batch_sharding,
    make_train_step,
    make_valid_step,
    sharded_state,
)


def main(argv: list[str]) -> None:
    """The command: config and flags from `argv`, then `train`."""
    config, rest = load(argv)
    flags = run_flags(rest, config)
    keep_memory()
    join(flags.distributed, flags.heartbeat)
    keep_programs()
    train(config, flags.workdir, allow_change=flags.allow_change, began=STARTED)


def train(config, workdir: str | Path, *, allow_change: Sequence[str] = (), began: float | None = None) -> None:
    """Trains by `config` in the folder `workdir` (gs:// too), from its newest checkpoint if it has one.

    began: `time.monotonic()` from which on the time counts as the run's; default: now.
    Raises UserError (nothing that a retry would mend) or TrainingStopped (a checkpoint was saved).
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    with jax.set_mesh(mesh):
        _train(config, str(workdir), mesh, allow_change, Ledger(began or time.monotonic()))


def _train(config, workdir: str, mesh: jax.sharding.Mesh, allow_change: Sequence[str], ledger: Ledger) -> None:
    # What touches files and draws pictures loads when a run starts, not when the package does.
    from data_pipelines.crops import crop_batches, tracks_left_out
    from musicssl_jax.interop.reading import read_pretrained
    from musicssl_jax.targets.codebook import files_within, read_codebooks
    from musicssl_jax.targets.open_targets import front_ends_of, open_targets
    from musicssl_jax.training.checkpointing import open_checkpoints
    from musicssl_jax.training.data import held_out, open_data
    from musicssl_jax.training.metrics import FILE, open_metrics, read_metrics
    from musicssl_jax.training.progress import open_progress
    from musicssl_jax.training.report import write_report
    from musicssl_jax.training.resumable import check_codebooks, check_resumable
    from musicssl_jax.training.run_folder import CHECKPOINTS, open_run_folder, run_meta, save_config, save_example
    from musicssl_jax.training.warm_start import warm_start

    ledger.lap("imports")

    # What to train, on which devices, from which data.
    lead = jax.process_index() == 0
    say = functools.partial(print, flush=True) if lead else lambda *_, **__: None
    platform = mesh.local_devices[0].platform
    check_kernel(config, platform)
    objective = make_objective(config, platform)
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    plan = BatchPlan(config.batch.clips, config.batch.per_device, batch_sharding(mesh))
    collections = open_data(config)
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    left_out = tracks_left_out(collections, "train", samples)

    front_ends = front_ends_of(config)
    folder, publish = open_run_folder(workdir)
    ledger.lap("data")

    # The state: from the newest checkpoint, or fresh.
    checkpoints = open_checkpoints(epath.Path(workdir) / CHECKPOINTS, config.checkpoint)
    meta = run_meta(config, collections)
    restored = checkpoints.restore(abstract_state(objective, optimizer, mesh))
    codebooks: Sequence = ()
    if restored is None:
        state = sharded_state(objective, optimizer, mesh, config.seed)
        if config.init_from:
            state, codebooks, said = warm_start(state, objective, config, read_pretrained(config.init_from), front_ends)
            say(said)
    else:
        state, saved = restored
        check_resumable(saved, meta, allow_change)
        codebooks = read_codebooks(checkpoints.folder / str(int(state.step)))
    first = int(state.step)
    ledger.lap("state")
    targets = open_targets(config, front_ends, epath.Path(workdir), collections, mesh, say, saved=codebooks)
    ledger.lap("targets")
    meta["codebooks"] = list(targets.ids)
    if restored is not None:
        check_codebooks(saved, meta)
    belongings = files_within(targets.codebooks)
    if first == config.steps:
        print(f"{workdir}: all {first} steps are done; --config.steps=N goes on")
        return
    if lead:
        save_config(folder, to_json(config))

    # What it will take.
    begun = f"goes on at step {first} of {config.steps}" if first else f"a new run of {config.steps} steps"
    say(f"{workdir}: {begun}, {parameter_count(state.params) / 1e6:.2f}M parameters")
    lines, peak = outlook(config, objective, plan, first)
    say(*lines, sep="\n")

    # Crops of the data, and the compiled functions.
    crops = {
        "weights": config.data.weights,
        "crop_samples": samples,
        "margin": targets.margin,
        "annotate": targets.read_labels,
        "grid": config.data.crop_grid,
        "sampling": config.data.sampling,
        "seed": config.seed,
        "clips": config.batch.clips,
        "rows": plan.rows,
        "threads": config.data.threads,
    }
    batches = crop_batches(collections, first_step=first, **crops)
    if left_out:
        say(f"{left_out} tracks are left out: they are shorter than a crop of {config.data.crop_seconds:g} s")
    validation = held_out(collections, samples)
    if not validation:
        say("no held-out track is as long as a crop: there will be no valid/ metrics")
    progress = open_progress(first, config.steps, plan.shape[0])
    slow = plan.shape[0] > 1 and mesh.devices.flat[0].platform == "cpu"
    on_micro_batch = progress.inside if slow else None
    train_step = make_train_step(objective, optimizer, schedule, mesh, config.seed, on_micro_batch, config.prng)
    valid_step = make_valid_step(objective, mesh, config.seed)
    diagnose = make_diagnose(objective)

    if lead:
        ledger.go_on(read_metrics(folder / FILE), first)
    metrics = open_metrics(folder, resumed_step=first, config=config)
    watch = CollapseWatch(config.collapse, config.steps, config.objective)
    audio_seconds, work = config.batch.clips * config.data.crop_seconds, update_flops(objective, samples)

    def log(step, row) -> bool:
        """Reads a step's metrics, which waits for it to end. Raises TrainingStopped when it went wrong.

        Returns whether a process was asked to stop before this step: all processes read the same answer.
        """
        row = {name: float(value) for name, value in row.items()}
        stop = bool(row.pop(STOP))
        progress.step(step)
        finite = math.isfinite(row["train/loss"]) and math.isfinite(row["train/grad_norm"])
        if step % config.log_every and step != config.steps and finite:
            return stop
        row |= ledger.read(step)
        row |= speed(step, row["perf/step_seconds"], audio_seconds, work, peak)
        metrics.write(step, row)
        progress.row(step, row)
        if not finite:
            raise TrainingStopped(
                DIVERGED,
                f"step {step}: loss {row['train/loss']}, gradient norm {row['train/grad_norm']}; that update was "
                "left out; try a lower schedule.peak, optimizer.clip_norm, or precision=float32",
            )
        if message := watch.verdict(step, row):
            raise TrainingStopped(DIVERGED, message)
        return stop

    def validate(step):
        """Mean metrics of held-out clips, the same ones each time, and what the layers look like."""
        rows = []
        with contextlib.closing(crop_batches(validation, split="valid", **crops)) as clips:
            for number in range(config.valid.batches):
                batch = plan.arrays(next(clips))
                rows.append(jax.device_get(valid_step(state, targets.sets, batch, number)))
        means = {f"valid/{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}
        metrics.write(step, means | jax.device_get(diagnose(state.params, batch)))

    # The loop. A step's metrics are read after the next step was sent off, so that the devices never wait; with them
    # comes whether any process was asked to stop, so that all stop after the same step.
    with contextlib.ExitStack() as at_end:
        if lead:
            at_end.callback(publish)
            at_end.callback(write_report, folder, checkpoints.folder)
        for opened in (metrics, checkpoints, progress, batches):
            at_end.callback(opened.close)
        signals = at_end.enter_context(stop_signals())

        def next_batch():
            with ledger.account("data_wait"):
                return plan.arrays(next(batches), stop=bool(signals))

        first_batch = next_batch()
        if lead:
            save_example(folder, objective, targets.sets, first_batch, first, config)
        ledger.lap("first batch")
        with ledger.account("compile"):
            train_step = train_step.lower(state, targets.sets, first_batch).compile()
        ledger.lap("compiling")
        say(f"compiled {ledger.since_start():.0f} s after the start")
        ledger.open("step")
        pending: tuple = ()
        try:
            for step in range(first + 1, config.steps + 1):
                batch = first_batch if step == first + 1 else next_batch()
                state, row = train_step(state, targets.sets, batch)
                stopping = log(*pending) if pending else False
                pending = (step, row)
                if step == first + 1:
                    jax.block_until_ready(row)
                    ledger.lap("first step")
                    say(f"the first step ended {ledger.since_start():.1f} s after the start: {ledger.laps()}")

                last = step == config.steps
                validating = bool(validation) and (last or step % config.valid.every == 0)
                saving = last or stopping or checkpoints.due(step)
                if not (validating or saving):
                    continue
                stopping = log(*pending) or stopping
                pending = ()
                if validating:
                    with ledger.account("validation"):
                        validate(step)
                with ledger.account("checkpoint"):
                    if last or stopping:
                        checkpoints.save_and_wait(step, state, meta, belongings)
                    elif saving:
                        checkpoints.save(step, state, meta, belongings)
                        publish()
                if stopping and not last:
                    reason = signals[0] if signals else ANOTHER
                    raise TrainingStopped(PREEMPTED, f"{reason}: step {step} is saved; the same command goes on")
        except TrainingStopped as stop:
            if stop.code == DIVERGED:
                checkpoints.save_and_wait(int(state.step), state, meta, belongings)
            raise
    say(f"done: {config.steps} steps; curves in {os.path.join(workdir, 'report.html')}")


if __name__ == "__main__":
    sys.exit(run_command(main))
