"""Scalars as TensorBoard reads them, written without TensorFlow.

The packages that write such files load PyTorch when it is installed, or write from a thread that dies
silently on a full disk. The format is small: TFRecords of protobuf messages (`tensorflow.Event`).
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Keys of protobuf fields: number << 3 | kind, kind 0 a varint, 1 eight bytes, 2 a length, 5 four bytes.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = b"\x09", b"\x10", b"\x1a", b"\x2a", b"\x3a"  # of Event
_VALUE = b"\x0a"  # of Summary
_TAG, _SIMPLE_VALUE = b"\x0a", b"\x15"  # of Summary.Value
_SESSION_START = b"\x08\x01"  # SessionLog(status=START)


class EventFile:
    """A new event file in `folder`. Raises OSError when it cannot be written."""

    def __init__(self, folder: Path, resumed_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._append(0, _message(_FILE_VERSION, b"brain.Event:2"))
        if resumed_step:
            # TensorBoard then drops what earlier files hold beyond the checkpoint.
            self._append(resumed_step + 1, _message(_SESSION_LOG, _SESSION_START))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one event with all scalars of `step`; on disk when it returns."""
        values = (
            _message(_VALUE, _message(_TAG, name.encode()) + _SIMPLE_VALUE + np.float32(value).tobytes())
            for name, value in scalars.items()
        )
        self._append(step, _message(_SUMMARY, b"".join(values)))

    def close(self) -> None:
        self._file.close()

    def _append(self, step: int, content: bytes) -> None:
        event = _WALL_TIME + struct.pack("<d", time.time()) + _STEP + _varint(step) + content
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked_crc(length) + event + _masked_crc(event))
        self._file.flush()


def _message(key: bytes, content: bytes) -> bytes:
    return key + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C (RFC 3720, Castagnoli), rotated and shifted as TFRecord files hold it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
