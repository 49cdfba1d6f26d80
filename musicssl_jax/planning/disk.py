"""What a run needs of disks."""

import dataclasses
from typing import Any

from musicssl_jax.planning.abstract import whole_bytes
from musicssl_jax.training.state import TrainState

BYTES_A_SAMPLE = 2  # shards hold 16-bit PCM


@dataclasses.dataclass(frozen=True)
class Disk:
    """hours: of music, that `data` bytes of shards hold. checkpoint: bytes of one. kept: checkpoints at the end."""

    hours: float
    data: int
    checkpoint: int
    kept: int

    @property
    def checkpoints(self) -> int:
        """Bytes at most: one more is there while the oldest has not gone."""
        return self.checkpoint * (self.kept + 1)


def disk_of(config: Any, state: TrainState, hours: float) -> Disk:
    """Data of so many hours, and the checkpoints that `config.checkpoint` keeps.

    Those that `keep_hours` keeps depend on how fast the run is, and are not counted.
    """
    every = config.checkpoint.keep_every
    return Disk(
        hours=hours,
        data=round(hours * 3600 * config.data.sample_rate) * BYTES_A_SAMPLE,
        checkpoint=whole_bytes(state),
        kept=config.checkpoint.keep + (config.steps // every if every else 0),
    )
