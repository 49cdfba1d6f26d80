"""The peer of `benchmarks.embed`: mean hidden states of files in PyTorch, with transformers' models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import Data2VecAudioConfig, Data2VecAudioModel, HubertConfig, HubertModel

from musicssl_jax.embedding.windows import Window
from musicssl_jax.interop.transformers_config import write_config
from musicssl_jax.targets.filter_bank import FrameGrid


class Peer:
    """A randomly initialised model of the config's sizes. windows: of a track of so many frames."""

    def __init__(self, config: Any, grid: FrameGrid, windows: Callable[[int], list[Window]]):
        if config.objective == "hubert":
            self._model = HubertModel(HubertConfig(**write_config(config, {}))).eval()
        else:
            self._model = Data2VecAudioModel(Data2VecAudioConfig(**write_config(config, {}))).eval()
        self._grid, self._windows = grid, windows

    @torch.inference_mode()
    def embed(self, folder: Path, threads: int, batch: int) -> list[np.ndarray]:
        """Means over each file, (layers + 1, width)."""
        torch.set_num_threads(threads)
        files = [self._rows(path) for path in sorted(folder.glob("*.wav"))]
        rows = [(number, window, audio) for number, file in enumerate(files) for window, audio in file]
        sums: list[Any] = [0.0] * len(files)
        counts = [0] * len(files)
        for first in range(0, len(rows), batch):
            chosen = rows[first : first + batch]
            audio = torch.from_numpy(np.stack([audio for _, _, audio in chosen]))
            states = self._model(audio, output_hidden_states=True).hidden_states
            for row, (number, window, _) in enumerate(chosen):
                sums[number] += torch.stack([layer[row, window.kept].sum(0) for layer in states]).numpy()
                counts[number] += window.end - window.begin
        return [total / count for total, count in zip(sums, counts, strict=True)]

    def _rows(self, path: Path) -> list[tuple[Window, np.ndarray]]:
        """The windows of a file that is at least one window long, normalised by the file's statistics."""
        audio, _ = soundfile.read(path, dtype="float32")
        audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-5)
        hop, field = self._grid.hop, self._grid.receptive_field
        return [
            (window, audio[window.start * hop :][: (window.size - 1) * hop + field])
            for window in self._windows(self._grid.count(len(audio)))
        ]
