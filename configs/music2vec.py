"""music2vec: data2vec 1.0 trained on music, in the eight settings of arXiv 2307.05161, `large`, `xlarge` and `demo`.

    musicssl train --config=configs/music2vec.py --config.data.path=DATA --workdir=RUN         base
    musicssl train --config=configs/music2vec.py:crop5s --config.data.path=DATA --workdir=RUN  a named variant
    musicssl train --config=configs/music2vec.py                                               demo, no data

The same command again resumes.

Costs (estimates from FLOP counts of the reference model, none of them a timing of this program): training
takes 52 GFLOP per second of audio at 5 s crops and 61 at 30 s. `base` sees 56 minutes of audio an update,
373,000 hours in all: about 8e19 FLOP, which is 4 days of one H200 at 250 TFLOP/s sustained. `800k` is twice
that, `crop5s` about the same as `base`, `large` several times as much. The reference's data2vec runs of this
size used 16 V100s.

Gives: an encoder of 93.75M parameters with the regression head (`large`: 314M, `xlarge`: 961M; nobody has
published either for music), and 50 feature frames a second from each of its blocks. `demo` is a hundred times
smaller and trains in minutes on two CPU cores.
"""

from ml_collections import ConfigDict

STEPS = 400_000

# What each variant changes in `base`, by field.
VARIANTS: dict[str, dict] = {
    "base": {},
    "800k": {"steps": 800_000},
    # The reference fills its batches by samples, so short crops make more clips: 47 a device instead of 7.
    "crop5s": {
        "data.crop_seconds": 5.0,
        "batch.clips": 752,
        "batch.per_device": 47,
        "mask.trim_group": 47,
    },
    "prob50": {"mask.prob": 0.5},
    "prob80": {"mask.prob": 0.8},
    "span5": {"mask.length": 5},
    "span15": {"mask.length": 15},
    "target12": {"target.top_k": 12},
    # The size of the reference's large models, which normalise before each block.
    "large": {
        "model.layers": 24,
        "model.width": 1024,
        "model.ffn": 4096,
        "model.heads": 16,
        "model.norm_first": True,
    },
    # HuBERT's X-Large. State and gradients take 19 GB: share them among devices, as docs/plan.md does.
    "xlarge": {
        "model.layers": 48,
        "model.width": 1280,
        "model.ffn": 5120,
        "model.heads": 16,
        "model.norm_first": True,
    },
    # Everything that is counted in steps is scaled to the length of the run. In so short a run a teacher that
    # shares the student's convolutions, or follows it fast, ends in targets that depend on position alone.
    "demo": {
        "steps": 240,
        "log_every": 10,
        "precision": "float32",
        "data.path": "musicbox",
        "data.crop_seconds": 5.0,
        "batch.clips": 8,
        "batch.per_device": 8,
        "mask.trim_group": 8,
        "model.conv_layers": ((32, 10, 5), (32, 3, 2), *((64, 3, 2),) * 2, (128, 3, 2), *((128, 2, 2),) * 2),
        "model.width": 128,
        "model.ffn": 512,
        "model.layers": 4,
        "model.heads": 4,
        "target.top_k": 3,
        "teacher.average": "all",
        "teacher.decay": 0.99,
        "teacher.end_decay": 0.999,
        "teacher.anneal_steps": 150,
        "schedule.warmup": 0.1,
        "schedule.hold": 0.6,
        "schedule.decay": 0.3,
        "valid.every": 60,
        "valid.batches": 4,
        "checkpoint.every": 120,
        "collapse.stop": False,  # so short a run is all warm-up: its signs are shown, not judged
    },
}


def get_config(variant: str | None = None) -> ConfigDict:
    """The settings of a variant; without a name, `base`."""
    config = ConfigDict(base())
    config.update_from_flattened_dict(VARIANTS[variant or "base"])
    return config


def base() -> dict:
    """The settings of the paper's `vanilla` model: fairseq's base_librispeech with crops of 30 s."""
    return {
        "objective": "data2vec",
        "steps": STEPS,  # updates of the parameters
        "seed": 0,  # decides initialisation, crops, masks and dropout
        "log_every": 50,  # steps between rows of metrics
        "precision": "bfloat16",  # of the matrix products; "float32" means full float32 everywhere
        "prng": "threefry2x32",  # "rbg" is faster on TPUs, but its draws for a clip depend on the batch around it
        "data": {
            # Built data sets or folders of audio, separated by commas; "musicbox": embedded synthetic music.
            "path": "",
            "weights": (),  # how often to draw from each path; empty: by its duration
            "crop_seconds": 30.0,  # length of a training clip
            "crop_grid": 320,  # crops start at multiples of this many samples; 1 is the reference
            "sampling": "duration",  # a second of music or a "track" is as likely as any other
            "sample_rate": 16_000,  # Hz, of the data set
            "normalize": True,  # by mean and standard deviation of the whole track
            "threads": 2,  # that read ahead; 0: read when asked
        },
        "batch": {
            "clips": 112,  # in one update, however many devices there are
            "per_device": 7,  # clips that a device takes at once; the rest is accumulated
        },
        "mesh": {
            "data": -1,  # devices that share a batch; -1: all that fsdp leaves
            "fsdp": 1,  # devices that share one copy of parameters, moments and teacher
        },
        # How it is computed, which changes results by rounding alone; free to change when a run goes on.
        "compute": {
            "attention": "auto",  # "xla", "cudnn" (GPU), "splash" (TPU); auto: what suits devices and dropout
            "remat": "none",  # what the backward pass computes anew to save memory: "products", "blocks", "all"
        },
        "model": {
            # (channels, kernel, stride): 320 samples a frame, which is 50 frames a second at 16 kHz
            "conv_layers": ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2),
            "conv_norm": "layer",  # after each convolution; "group": after the first alone
            "conv_bias": False,
            "width": 768,
            "ffn": 3072,  # width inside the feed-forward layers
            "heads": 12,
            "layers": 12,
            "norm_first": False,  # normalise before attention and feed-forward instead of after
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.0,
            "input_dropout": 0.0,
            "layer_drop": 0.05,  # chance that a block is skipped
            "feature_grad_mult": 1.0,  # scales the gradient that reaches the convolutions
            "positional": "stacked",  # convolutions that tell a frame its place
            "positional_kernel": 95,  # frames, of the whole stack
            "positional_depth": 5,
            "positional_groups": 16,
        },
        "mask": {
            "prob": 0.65,  # number of span starts times length over frames; spans overlap, so less is masked
            "length": 10,  # frames in a span
            "min_masks": 1,  # spans in a clip, at least
            # Clips in a group whose masks are all cut to the size of its smallest: what a device of the
            # reference holds. 0: no trim.
            "trim_group": 7,
            "dropout": 0.0,  # share of masked frames that are shown after all
            "channel_prob": 0.0,  # the same for spans of channels, which are set to zero
            "channel_length": 10,
        },
        "target": {
            "top_k": 8,  # last blocks whose feed-forward outputs are averaged
            # Normalisations of each block's output; several apply in the reference's order.
            "instance_norm_layer": True,  # over time
            "batch_norm_layer": False,
            "layer_norm_layer": False,
            "group_norm_layer": False,
            # Normalisations of the average.
            "layer_norm": False,
            "instance_norm": False,
        },
        "loss": {
            "beta": 0.0,  # where smooth-L1 turns linear; 0: squared error
            "scale": 0.0,  # factor; 0: 1/sqrt(width)
        },
        "teacher": {
            "decay": 0.999,  # of the average over the student, at the start
            "end_decay": 0.9999,  # after anneal_steps, reached linearly
            "anneal_steps": 30_000,
            # Averaged, the rest is copied; "transformer": + positional convolutions, "all": + conv stack.
            "average": "blocks",
            "steps_per_update": 1,  # the reference with update_freq=u averages u times
        },
        "optimizer": {
            "name": "adam_fairseq",  # eps beside the uncorrected moment; "adamw": torch's form
            "b1": 0.9,
            "b2": 0.98,
            "eps": 1e-6,
            "weight_decay": 0.01,  # decoupled, on every parameter
            "clip_norm": 0.0,  # largest global gradient norm; 0: no clipping
        },
        "schedule": {
            "name": "tri_stage",  # or "polynomial", "cosine"
            "peak": 5e-4,
            # Fractions of steps; the last two for tri_stage alone.
            "warmup": 0.03,
            "hold": 0.9,
            "decay": 0.07,
            # Fractions of peak.
            "init_scale": 0.01,
            "final_scale": 0.01,
            "power": 1.0,  # of the polynomial
        },
        "valid": {
            "every": 5000,
            "batches": 4,
        },
        "checkpoint": {
            "every": 5000,
            "keep": 2,  # newest ones kept
            "keep_every": 0,  # also keep each of this many steps, for good; 0: none
            "keep_hours": 0.0,  # also keep one per so many hours; 0: none
            "minutes": 0.0,  # also save when this long has passed since the last; 0: never
        },
        # When a run is taken to have collapsed: it stops with a checkpoint.
        "collapse": {
            "stop": True,
            "after": 0.0125,  # fraction of steps before the first verdict: the reference's 5000 of 400,000
            "target_spread": 0.1,  # least mean standard deviation of targets, as in the reference
            "prediction_spread": 0.01,
            "positional_share": 0.7,  # largest share of the targets' variance that position alone explains
            "swap_gap": 0.01,  # least rise of the loss, as a share of it, when clips get each other's targets
            "patience": 5,  # rows of metrics in a row
        },
        # The model that this run begins with: a run, a transformers folder, a fairseq .pt, hf:OWNER/NAME; empty: none.
        "init_from": "",
        "init_parts": "trunk",  # what of it: its encoder; "all": also heads and teacher, as far as they fit
        "wandb": False,
    }
