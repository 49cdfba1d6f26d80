"""The peer of `benchmarks.embed`: mean hidden states of files in PyTorch, with transformers' models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import AutoModel

from benchmarks.turns import memory, serve, timed
from musicssl_jax.embedding.windows import Window


class Peer:
    """The model that our side wrote; `prepare` first."""

    def prepare(
        self, folder: str, windows: Sequence[Sequence[int]], hop: int, receptive_field: int, normalize: bool
    ) -> None:
        """folder: that of `audio` and `model`. windows: of each file, as `plan_windows` gives them."""
        self.folder = Path(folder)
        self.model = AutoModel.from_pretrained(self.folder / "model").eval()
        self.windows = [Window(*window) for window in windows]
        self.hop, self.receptive_field, self.normalize = hop, receptive_field, normalize

    def work(self, number: int, threads: int, batch: int) -> dict[str, float]:
        """Embeds all files."""
        del number
        torch.set_num_threads(threads)
        return timed(lambda: self.means(batch))

    def save(self, file: str) -> None:
        """Writes the means of all files, (files, layers + 1, width)."""
        np.save(file, self.means(1))

    @torch.inference_mode()
    def means(self, batch: int) -> list[np.ndarray]:
        """Over each file, (layers + 1, width); so many windows at once."""
        files = [self._rows(path) for path in sorted((self.folder / "audio").iterdir())]
        rows = [(number, window, audio) for number, file in enumerate(files) for window, audio in file]
        sums: list[Any] = [0.0] * len(files)
        counts = [0] * len(files)
        for first in range(0, len(rows), batch):
            chosen = rows[first : first + batch]
            audio = torch.from_numpy(np.stack([audio for _, _, audio in chosen]))
            states = self.model(audio, output_hidden_states=True).hidden_states
            for row, (number, window, _) in enumerate(chosen):
                sums[number] += torch.stack([layer[row, window.kept].sum(0) for layer in states]).numpy()
                counts[number] += window.end - window.begin
        return [total / count for total, count in zip(sums, counts, strict=True)]

    def _rows(self, path: Path) -> list[tuple[Window, np.ndarray]]:
        """The windows of a file, which is at least one window long; normalised by the file's statistics."""
        audio, _ = soundfile.read(path, dtype="float32")
        if self.normalize:
            audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-5)
        return [
            (window, audio[window.start * self.hop :][: (window.size - 1) * self.hop + self.receptive_field])
            for window in self.windows
        ]


if __name__ == "__main__":
    side = Peer()
    serve({"prepare": side.prepare, "work": side.work, "save": side.save, "memory": memory})
