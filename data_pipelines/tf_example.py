"""Records as the bytes of a `tf.train.Example`, written and read without TensorFlow; above all a collection's.

The audio is the last field, so that its samples are the last bytes of the record and can be sliced out
without decoding anything.
Wire format: https://protobuf.dev/programming-guides/encoding and tensorflow/core/example/example.proto.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from musicssl_jax.shapes import Int16

SAMPLE_BYTES = 2
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of tf.train.Feature


class Header(NamedTuple):
    """What a record says of its samples.

    `start` and `track_length` are in samples; `mean` and `std` (population) are those of the WHOLE track's
    waveform scaled to [-1, 1].
    """

    track: str
    start: int
    track_length: int
    mean: float
    std: float


def encode_record(
    pcm: Int16[np.ndarray, " n"], *, track: str, start: int, track_length: int, mean: float, std: float
) -> bytes:
    """The tf.Example of the n samples of `track` that begin at sample `start`."""
    samples = pcm.astype("<i2", copy=False).tobytes()
    return encode_header(Header(track, start, track_length, mean, std), len(pcm)) + samples


def encode_header(header: Header, samples: int) -> bytes:
    """All bytes of the record before its first sample."""
    track, start, track_length, mean, std = header
    fields = _track_fields(track, track_length, mean, std) + _feature(b"start", _INT64_LIST, _field(1, _varint(start)))
    audio = _audio_prefix(samples)
    return _prefix(1, len(fields) + len(audio) + samples * SAMPLE_BYTES) + fields + audio


def encode_bytes(fields: Mapping[str, bytes]) -> bytes:
    """The tf.Example whose features are one byte string each."""
    features = [_feature(name.encode(), _BYTES_LIST, _field(1, value)) for name, value in fields.items()]
    return _field(1, b"".join(features))


def decode_bytes(record: bytes) -> dict[str, memoryview]:
    """Inverse of `encode_bytes`; of a feature that is one number the bytes that hold it."""
    values: dict[str, memoryview] = {}
    for entry in _messages(_only(memoryview(record))):
        name, feature = _messages(entry)
        values[bytes(name).decode()] = _only(_only(feature))
    return values


def decode_header(record: bytes) -> tuple[Header, int]:
    """Inverse of `encode_header`, for a tf.Example that has these features in any order."""
    values = decode_bytes(record)
    header = Header(
        track=bytes(values["track"]).decode(),
        start=_read_varint(values["start"], 0)[0],
        track_length=_read_varint(values["track_length"], 0)[0],
        mean=struct.unpack("<f", values["mean"])[0],
        std=struct.unpack("<f", values["std"])[0],
    )
    return header, len(values["audio"]) // SAMPLE_BYTES


@lru_cache(maxsize=256)  # readers compare the header of every record: neighbours share all but `start`
def _track_fields(track: str, track_length: int, mean: float, std: float) -> bytes:
    return (
        _feature(b"track", _BYTES_LIST, _field(1, track.encode()))
        + _feature(b"track_length", _INT64_LIST, _field(1, _varint(track_length)))
        + _feature(b"mean", _FLOAT_LIST, _field(1, struct.pack("<f", mean)))
        + _feature(b"std", _FLOAT_LIST, _field(1, struct.pack("<f", std)))
    )


@lru_cache(maxsize=256)
def _audio_prefix(samples: int) -> bytes:
    """What stands before the samples in the audio's four enclosing messages, written from the inside out."""
    size = samples * SAMPLE_BYTES
    prefix = _prefix(1, size)
    prefix = _prefix(_BYTES_LIST, len(prefix) + size) + prefix
    prefix = _field(1, b"audio") + _prefix(2, len(prefix) + size) + prefix
    return _prefix(1, len(prefix) + size) + prefix


def _feature(name: bytes, kind: int, values: bytes) -> bytes:
    """One entry of `Features.feature`, a map<string, Feature>: key is field 1, value is field 2."""
    return _field(1, _field(1, name) + _field(2, _field(kind, values)))


def _field(number: int, payload: bytes) -> bytes:
    return _prefix(number, len(payload)) + payload


def _prefix(number: int, size: int) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(size)  # 2: length-delimited


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _messages(data: memoryview) -> list[memoryview]:
    """The payloads of a message whose fields are all length-delimited, in order."""
    payloads, at = [], 0
    while at < len(data):
        size, begin = _read_varint(data, at + 1)
        at = begin + size
        payloads.append(data[begin:at])
    return payloads


def _only(data: memoryview) -> memoryview:
    (payload,) = _messages(data)
    return payload
