"""musicHuBERT: HuBERT trained on music, in the four settings of arXiv 2307.05161, and with targets that hear harmony.

    musicssl train --config=configs/musichubert.py --config.data.path=DATA --workdir=RUN         k500
    musicssl train --config=configs/musichubert.py:chroma --config.data.path=DATA --workdir=RUN  a named variant
    musicssl train --config=configs/musichubert.py:k2000_iter2 --config.data.path=DATA --workdir=RUN2 \
        --config.targets=layer:6@RUN                                                             a second iteration

The same command again resumes. Labels are computed on the device from the very crops that the model hears; without
`codebooks` the first thing a run does is to fit its own, into its folder. `musicssl cluster` fits them beforehand, and
`musicssl iterate` runs a first iteration and a second one on its layer.

Costs: an update hears 16 minutes of music (32 clips of 30 s), music2vec's 56. Compute-matched runs are one override:
--config.batch.clips=112. `k500` hears 67,000 hours in 250,000 updates: about 1e19 FLOP by the reference model's count,
half a day of one H200 at 250 TFLOP/s sustained (an estimate, not a timing of this program).

Gives: an encoder of 94.37M parameters, 94.7M with its head and 500 label embeddings. `demo` is a hundred times smaller
and trains in minutes on two CPU cores.
"""

from ml_collections import ConfigDict

FIRST, SECOND = 250_000, 400_000  # updates of the two iterations

# What each variant changes in `k500`, by field.
VARIANTS: dict[str, dict] = {
    "k500": {},
    "k500_mfcc60": {"targets": ("mfcc60",)},
    "k2000_iter1": {"clusters": (2000,)},
    # Wants --config.targets=layer:6@RUN, where RUN is a first iteration.
    "k2000_iter2": {"clusters": (2000,), "targets": ("layer:6@",), "steps": SECOND},
    # Not the paper's: targets that do not lose the harmony of several notes at once, as MFCCs do.
    "chroma": {"targets": ("chroma12",)},
    "logmel_chroma": {"targets": ("logmel229", "chroma24"), "clusters": (300, 200)},
    "ensemble": {"targets": ("mfcc39", "chroma24", "cqt84"), "clusters": (300, 200, 200), "regression": "cqt336"},
    # Everything that is counted in steps is scaled to the length of the run. In so short a run dropout and the
    # penalty on the convolutions' output leave nothing learned. What teaches it most are many small updates, for
    # which convolutions of three layers on the same frames pay, the labels of seen frames, and a lower temperature.
    "demo": {
        "steps": 800,
        "log_every": 20,
        "precision": "float32",
        "targets": ("mfcc39", "cqt84"),
        "clusters": (64, 64),
        "codebook.batch_frames": 2000,
        "codebook.frames_per_crop": 100,
        "codebook.initial_frames": 4000,
        "codebook.restarts": 3,
        "codebook.patience": 10,
        "codebook.max_batches": 40,
        "data.path": "musicbox",
        "data.crop_seconds": 5.0,
        "batch.clips": 4,
        "batch.per_device": 4,
        "mask.trim_group": 4,
        "model.conv_layers": ((32, 20, 20), (64, 4, 4), (128, 5, 4)),
        "model.width": 128,
        "model.ffn": 512,
        "model.layers": 4,
        "model.heads": 4,
        "model.dropout": 0.0,
        "model.attention_dropout": 0.0,
        "model.input_dropout": 0.0,
        "model.layer_drop": 0.0,
        "model.feature_grad_mult": 1.0,
        "model.positional_kernel": 32,
        "prediction.width": 64,
        "prediction.temperature": 0.05,
        "prediction.unmasked_weight": 1.0,
        "prediction.feature_penalty": 0.0,
        "schedule.peak": 2e-3,
        "schedule.warmup": 0.1,
        "valid.every": 200,
        "valid.batches": 8,
        "checkpoint.every": 400,
    },
}


def get_config(variant: str | None = None) -> ConfigDict:
    """The settings of a variant; without a name, `k500`."""
    config = ConfigDict(base())
    config.update_from_flattened_dict(VARIANTS[variant or "k500"])
    return config


def base() -> dict:
    """The settings of the paper's first-iteration model: fairseq's hubert_base_librispeech with crops of 30 s."""
    return {
        "objective": "hubert",
        "steps": FIRST,  # updates of the parameters
        "seed": 0,  # decides codebooks, initialisation, crops, masks and dropout
        "log_every": 50,  # steps between rows of metrics
        "precision": "bfloat16",  # of the matrix products; "float32" means full float32 everywhere
        "prng": "threefry2x32",  # "rbg" is faster on TPUs, but its draws for a clip depend on the batch around it
        # What is predicted: label sets, each of a front end (mfcc39, mfcc60, logmel229, chroma12, chroma24, cqt84,
        # cqt336) or of a layer of an earlier run (layer:6@RUN), and how many clusters each has.
        "targets": ("mfcc39",),
        "clusters": (500,),
        "regression": "",  # a front end whose frames are regressed as well
        "codebooks": "",  # folders that `musicssl cluster` made, separated by commas; empty: fitted by the run
        "labels": "",  # folders that `musicssl label` made, one for each of data.path; empty: computed in the step
        # How codebooks are fitted: the reference's options of scikit-learn's MiniBatchKMeans.
        "codebook": {
            "batch_frames": 10_000,  # frames in one batch of k-means
            "frames_per_crop": 20,  # at most so many of them from one crop
            "initial_frames": 30_000,  # on which the start is chosen
            "restarts": 20,  # starts that are tried
            "reassignment_ratio": 0.0,  # clusters rarer than this share of the commonest start anew; 0: none
            "patience": 100,  # batches without progress before it ends
            "max_batches": 1000,
            "other_data": False,  # whether a codebook that was fitted on other data will do
        },
        "data": {
            # Built data sets or folders of audio, separated by commas; "musicbox": embedded synthetic music.
            "path": "",
            "weights": (),  # how often to draw from each path; empty: by its duration
            "crop_seconds": 30.0,  # length of a training clip
            "crop_grid": 320,  # crops start at multiples of this many samples; 1 is the reference
            "sampling": "duration",  # a second of music or a "track" is as likely as any other
            "sample_rate": 16_000,  # Hz, of the data set
            "normalize": False,  # by mean and standard deviation of the whole track
            "threads": 2,  # that read ahead; 0: read when asked
        },
        "batch": {
            "clips": 32,  # in one update, however many devices there are
            "per_device": 4,  # clips that a device takes at once; the rest is accumulated
        },
        "mesh": {
            "data": -1,  # devices that share a batch; -1: all that fsdp leaves
            "fsdp": 1,  # devices that share one copy of parameters and moments
        },
        # How it is computed, which changes results by rounding alone; free to change when a run goes on.
        "compute": {
            "attention": "auto",  # "xla", "cudnn" (GPU), "splash" (TPU); auto: what suits devices and dropout
            "remat": "none",  # what the backward pass computes anew to save memory: "products", "blocks", "all"
        },
        "model": {
            # (channels, kernel, stride): 320 samples a frame, which is 50 frames a second at 16 kHz
            "conv_layers": ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2),
            "conv_norm": "group",  # after the first convolution alone; "layer": after each
            "conv_bias": False,
            "width": 768,
            "ffn": 3072,  # width inside the feed-forward layers
            "heads": 12,
            "layers": 12,
            "norm_first": False,  # normalise before attention and feed-forward instead of after
            "dropout": 0.1,
            "attention_dropout": 0.1,
            "activation_dropout": 0.0,
            "input_dropout": 0.1,
            "layer_drop": 0.05,  # chance that a block is skipped
            "feature_grad_mult": 0.1,  # scales the gradient that reaches the convolutions
            "positional": "weight_norm",  # convolution that tells a frame its place
            "positional_kernel": 128,  # frames
            "positional_depth": 1,
            "positional_groups": 16,
        },
        "mask": {
            "prob": 0.80,  # number of span starts times length over frames; spans overlap, so less is masked
            "length": 10,  # frames in a span
            "min_masks": 2,  # spans in a clip, at least
            # Clips in a group whose masks are all cut to the size of its smallest: what a device of the
            # reference holds. 0: no trim.
            "trim_group": 4,
            "dropout": 0.0,  # share of masked frames that are shown after all
            "channel_prob": 0.0,  # the same for spans of channels, which are set to zero
            "channel_length": 10,
        },
        "prediction": {
            "width": 256,  # of the space in which frames and label embeddings are compared
            "temperature": 0.1,  # which their cosines are divided by
            "untied": True,  # a projection for every label set
            "masked_weight": 1.0,  # in the loss, of masked frames
            "unmasked_weight": 0.0,  # and of seen ones
            "feature_penalty": 10.0,  # weight of the mean squared output of the convolutions
            "log_unmasked": False,  # log accuracy on seen frames too, which costs their logits
            "regression_weight": 1.0,  # of the mean squared error of `regression`
        },
        "optimizer": {
            "name": "adam_fairseq",  # eps beside the uncorrected moment; "adamw": torch's form
            "b1": 0.9,
            "b2": 0.98,
            "eps": 1e-6,
            "weight_decay": 0.01,  # decoupled, on every parameter
            "clip_norm": 10.0,  # largest global gradient norm; 0: no clipping
        },
        "schedule": {
            "name": "polynomial",  # or "tri_stage", "cosine"
            "peak": 5e-4,
            # Fractions of steps; the last two for tri_stage alone.
            "warmup": 0.08,
            "hold": 0.0,
            "decay": 0.0,
            # Fractions of peak, for the other schedules.
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
            "after": 0.2,  # fraction of steps before the first verdict
            "used": 0.02,  # least share of the clusters that the labels of a batch make use of
            "patience": 5,  # rows of metrics in a row
        },
        # The model that this run begins with: a run, a transformers folder, a fairseq .pt, hf:OWNER/NAME; empty: none.
        "init_from": "",
        "init_parts": "trunk",  # what of it: its encoder; "all": also heads and teacher, as far as they fit
        "wandb": False,
    }
