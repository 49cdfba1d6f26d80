"""A trained encoder as a function of a waveform: windows, hidden states, times."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.embedding.batching import Batch, Track, Waveform, encode_windows
from musicssl_jax.embedding.pooling import EveryFrame
from musicssl_jax.embedding.windows import default_context
from musicssl_jax.flops import encoder_flops
from musicssl_jax.interop.pretrained import digest
from musicssl_jax.models.conv_encoder import hop_and_receptive_field
from musicssl_jax.models.encoder import (
    Encoder,
    EncoderConfig,
    encoder_with,
    first_blocks,
    frame_padding,
    normalize,
    to_float,
)
from musicssl_jax.parallel import path_name
from musicssl_jax.shapes import Array, Float, Int, Shaped
from musicssl_jax.targets.filter_bank import FrameGrid


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenEncoder:
    """Call it with a waveform; see `musicssl_jax.load_encoder`.

    sample_rate: that the encoder works at. hop, receptive_field: of a frame, in samples. layers: transformer blocks
    (hidden states are numbered from 0, the blocks' input, to `layers`). width: of a hidden state.
    name: where the parameters came from.
    """

    name: str
    sample_rate: int
    hop: int
    receptive_field: int
    layers: int
    width: int
    _config: EncoderConfig = dataclasses.field(repr=False)
    _normalize: bool = dataclasses.field(repr=False)  # by the track's statistics
    _params: dict = dataclasses.field(repr=False)

    def __call__(
        self,
        waveform: Any,
        *,
        sample_rate: int | None = None,
        layers: Sequence[int] | int | None = None,
        mean: float | None = None,
        std: float | None = None,
        window_seconds: float = 30.0,
        context_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """A dict of hidden (layers, T, width) float32; layers, their numbers; times (T,), the frames' centres in
        seconds.

            encode = load_encoder("runs/music2vec_base")
            states = encode(waveform, sample_rate=44100)
            states["hidden"][6].mean(axis=0)  # one vector of the track, from the sixth block

        waveform: one channel, floats in [-1, 1] or 16-bit integers, at the encoder's rate unless `sample_rate` says
        another. layers: which of 0..`self.layers`; all of them by default. mean, std: of the whole track in [-1, 1],
        if `waveform` is a part of it. A waveform longer than `window_seconds` is encoded in windows that overlap by
        twice `context_seconds`, which are left out of what a window gives (docs/embed.md).
        Raises ValueError: not such a waveform, values that are no numbers, shorter than one frame, no such layer.
        """
        pcm = self._at_own_rate(checked_waveform(waveform), sample_rate)
        frames = self.grid.count(len(pcm))
        if frames < 1:
            raise ValueError(f"{len(pcm)} samples are less than one frame ({self.receptive_field} samples)")
        numbers = tuple(range(self.layers + 1)) if layers is None else self._checked_layers(layers)
        track = Track("", pcm, *_statistics(pcm, mean, std), EveryFrame(frames))
        size, context = self.window_frames(window_seconds, context_seconds)
        hidden = np.empty((len(numbers), frames, self.width), np.float32)
        rows = self.rows() if frames > size else 1
        states = functools.partial(self.states, layers=numbers)
        for _, _, (first, values) in encode_windows(states, self.grid, [track], size=size, context=context, rows=rows):
            hidden[:, first : first + values.shape[1]] = values
        return {"hidden": hidden, "layers": np.array(numbers), "times": self.times(frames)}

    @property
    def grid(self) -> FrameGrid:
        """Where its frames lie."""
        return FrameGrid(self.sample_rate, self.hop, self.receptive_field)

    @property
    def precision(self) -> str:
        """What it computes in: "float32" or "bfloat16"."""
        return self._config.dtype

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its parameters."""
        named = jax.tree_util.tree_leaves_with_path(self._params)
        return digest({path_name(path): np.asarray(leaf) for path, leaf in named})

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all that its outputs follow from: parameters, sizes, precision, rate, normalisation."""
        return hashlib.sha256(repr((self.digest, self._config, self._normalize, self.sample_rate)).encode()).hexdigest()

    def flops(self, samples: int) -> int:
        """Of the forward pass over so many samples; a multiplication and an addition count as 2."""
        return encoder_flops(self._config, samples)

    def times(self, frames: int) -> Float[np.ndarray, " frames"]:
        """Centres of the first `frames` frames in seconds."""
        return (np.arange(frames) * self.hop + self.receptive_field / 2) / self.sample_rate

    def with_precision(self, precision: str) -> "FrozenEncoder":
        """The same encoder, computing in "float32" (exact on every device) or "bfloat16"."""
        return dataclasses.replace(self, _config=dataclasses.replace(self._config, dtype=precision))

    def window_frames(self, window_seconds: float, context_seconds: float | None) -> tuple[int, int]:
        """(size, context) of a window in frames. Raises ValueError where the context leaves nothing of it."""
        if context_seconds is None:
            context_seconds = default_context(window_seconds)
        size, context = (round(seconds * self.sample_rate / self.hop) for seconds in (window_seconds, context_seconds))
        if not 0 <= 2 * context < size:
            raise ValueError(
                f"a window of {window_seconds:g} s with {context_seconds:g} s of context on both sides keeps nothing"
            )
        return size, context

    def rows(self, per_device: int | None = None) -> int:
        """Windows of a batch on all local devices; `per_device` by default 1 on CPUs and 8 elsewhere."""
        devices = jax.local_devices()
        if per_device is None:
            per_device = 1 if devices[0].platform == "cpu" else 8
        return per_device * len(devices)

    def states(
        self, batch: Batch, sums: int, *, layers: tuple[int, ...], dtype: str = "float32"
    ) -> Float[Array, "layers B n width"]:
        """Hidden states of a batch, or `sums` of them a row; computed over all local devices if they divide the rows,
        else on the first. Blocks behind the highest layer are not run. Not waited for. float16 is clipped to its range.
        """
        devices = jax.local_devices()
        count = len(devices) if len(batch.audio) % len(devices) == 0 else 1
        return self._program(layers, sums, dtype, count)(*batch)

    @functools.cached_property
    def _programs(self) -> dict:
        return {}

    def _program(self, layers: tuple[int, ...], sums: int, dtype: str, devices: int) -> Any:
        key = layers, sums, dtype, devices
        if key not in self._programs:
            self._programs[key] = self._make_program(*key)
        return self._programs[key]

    def _make_program(self, layers: tuple[int, ...], sums: int, dtype: str, devices: int) -> Any:
        mesh = Mesh(np.array(jax.local_devices()[:devices]), ("data",))
        blocks = max(1, *layers)
        config, params = dataclasses.replace(self._config, layers=blocks), first_blocks(self._params, blocks)

        def apply(params, audio, mean, std, lengths, segments):
            waveform = normalize(audio, mean, std) if self._normalize else to_float(audio)
            encoder = encoder_with(config, params)
            states = chosen_states(encoder, waveform, lengths, layers, segments, sums)
            return _as_dtype(states, dtype)

        by_row = P("data")
        on_devices = jax.jit(
            jax.shard_map(
                apply,
                mesh=mesh,
                in_specs=(P(), by_row, by_row, by_row, by_row, by_row),
                out_specs=P(None, "data"),
                check_vma=False,
            )
        )
        params = jax.device_put(params, NamedSharding(mesh, P()))
        rows = NamedSharding(mesh, by_row)

        def run(*batch):
            with jax.set_mesh(mesh):  # whatever mesh the caller is in
                return on_devices(params, *jax.device_put(batch, rows))

        return run

    def _at_own_rate(self, waveform: Waveform, sample_rate: int | None) -> Shaped[np.ndarray, " resampled"]:
        if sample_rate in (None, self.sample_rate):
            return waveform
        if sample_rate <= 0:
            raise ValueError(f"sample_rate={sample_rate}: want samples a second")
        import soxr

        if waveform.dtype == np.int16:
            waveform = waveform.astype(np.float32) / 32768
        return soxr.resample(waveform, sample_rate, self.sample_rate, quality="HQ")

    def _checked_layers(self, layers: Sequence[int] | int) -> tuple[int, ...]:
        numbers = tuple(map(int, np.atleast_1d(np.asarray(layers))))
        if not numbers or not all(0 <= number <= self.layers for number in numbers):
            raise ValueError(f"layers {list(numbers)}: want some of 0 to {self.layers}")
        return numbers


def frozen_encoder(config: Any, params: dict, *, name: str) -> FrozenEncoder:
    """The encoder whose parameters are `params`.

    It computes in the precision that the config trains in, but on CPUs always in float32: bfloat16 is slower there.
    """
    hop, field = hop_and_receptive_field(config.model.conv_layers)
    on_cpu = jax.local_devices()[0].platform == "cpu"
    return FrozenEncoder(
        name=name,
        sample_rate=config.data.sample_rate,
        hop=hop,
        receptive_field=field,
        layers=config.model.layers,
        width=config.model.width,
        _config=EncoderConfig(**config.model, dtype="float32" if on_cpu else config.precision),
        _normalize=config.data.normalize,
        _params=params,
    )


def chosen_states(
    encoder: Encoder,
    waveform: Float[Array, "B N"],
    lengths: Int[Array, " B"],
    layers: Sequence[int],
    segments: Int[Array, "B T"],
    sums: int,
) -> Float[Array, "layers B n width"]:
    """float32 hidden states of `layers`; or `sums` of them, by segment.

    0 is the blocks' input, n the output of block n, without the final norm of models that normalise first (reference:
    fairseq's layer n, and transformers' hidden_states since version 5). `lengths`: samples of each row that are audio.
    Only what is asked for is kept while the blocks run.
    """
    conv = encoder.features(waveform, lengths)
    padding = frame_padding(lengths, conv.shape[1], encoder.config.conv_layers)
    weights = jax.nn.one_hot(segments, sums, axis=1)

    def kept(states: Float[Array, "B T D"]) -> Float[Array, "B n D"]:
        states = states.astype(jnp.float32)
        return jnp.matmul(weights, states, precision=jax.lax.Precision.HIGHEST) if sums else states

    def collect(collected, index, ffn, output):
        del ffn
        return collected.at[index + 1].set(kept(output))

    first = encoder.transformer.embed(encoder.project(conv), padding=padding, sealed=True)
    empty = jnp.zeros((encoder.config.layers + 1, *kept(first).shape), jnp.float32)
    empty = empty.at[0].set(kept(first))
    _, collected = encoder.transformer.encode(first, padding=padding, tap=collect, tapped=empty)
    return collected[jnp.array(layers)]


def checked_waveform(waveform: Any) -> Waveform:
    """The waveform as a float32 or int16 array. Raises ValueError that says what is wrong with it."""
    array = np.asarray(waveform)
    if array.ndim != 1:
        raise ValueError(
            f"a waveform of shape {array.shape}: want one channel, (samples,); of several take the mean, for example "
            "waveform.mean(axis=1) of (samples, channels)"
        )
    if array.dtype == np.int16:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"a waveform of {array.dtype}: want floats in [-1, 1] or int16")
    if not np.isfinite(array).all():
        raise ValueError(f"the waveform is not finite from sample {int(np.argmin(np.isfinite(array)))} on")
    return array.astype(np.float32, copy=False)


def _statistics(waveform: Waveform, mean: float | None, std: float | None) -> tuple[float, float]:
    """Mean and standard deviation of the waveform in [-1, 1], unless they are given."""
    scale = 1 / 32768 if waveform.dtype == np.int16 else 1.0
    if mean is None:
        mean = float(np.mean(waveform, dtype=np.float64)) * scale
    if std is None:
        std = float(np.std(waveform, dtype=np.float64)) * scale
    return mean, std


def _as_dtype(states: Float[Array, "..."], dtype: str) -> Float[Array, "..."]:
    if dtype == "float16":
        largest = float(jnp.finfo(jnp.float16).max)
        states = jnp.clip(states, -largest, largest)
    return states.astype(dtype)
