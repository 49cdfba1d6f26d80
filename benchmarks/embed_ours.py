"""Our side of `benchmarks.embed`: the inside of `musicssl embed`."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from benchmarks.turns import memory, serve, timed
from data_pipelines.sources import walk_folder
from musicssl_jax import config as configs
from musicssl_jax.embedding.embed_files import Options, embed_files, open_writer
from musicssl_jax.embedding.shared_folder import SharedFolder
from musicssl_jax.embedding.windows import plan_windows
from musicssl_jax.flops import peak_flops
from musicssl_jax.frozen_encoder import frozen_encoder
from musicssl_jax.interop.key_map import write_tensors
from musicssl_jax.interop.transformers_config import write_config
from musicssl_jax.interop.transformers_folder import CONFIG, TENSORS, key_table
from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.state import parameter_count


class Ours:
    """An encoder with random parameters, and what the command does with it; `prepare` first."""

    def prepare(self, flags: list[str], folder: str, options: dict[str, float], seconds: float) -> dict[str, Any]:
        """Makes the encoder, and writes it for the peer as a transformers folder, `model` in `folder`.

        flags: of its config. folder: that of `audio`, whose files last so many seconds. options: of windows.
        """
        config = configs.load(flags)[0]
        params = jax.jit(make_objective(config).init)(jax.random.key(0))["encoder"]
        self.encoder = encoder = frozen_encoder(config, params, name=config.objective)
        self.options = Options(layers=range(encoder.layers + 1), dtype="float32", **options)
        self.folder = Path(folder)
        write_model(config, params, self.folder / "model")
        frames = encoder.grid.count(round(seconds * encoder.sample_rate))
        windows = plan_windows(frames, *encoder.window_frames(**options))
        samples = [(window.size - 1) * encoder.hop + encoder.receptive_field for window in windows]
        device = jax.devices()[0]
        return {
            "model": {
                "windows": windows,
                "hop": encoder.hop,
                "receptive_field": encoder.receptive_field,
                "normalize": config.data.normalize,
            },
            "row": {
                "parameters": parameter_count(params),
                "flops": sum(map(encoder.flops, samples)) * len(list((self.folder / "audio").iterdir())),
                "peak": peak_flops(device, config.precision),
            },
            "device": device.device_kind,
        }

    def work(self, number: int) -> dict[str, float]:
        """Embeds all files; what is in `features` afterwards is theirs."""
        del number
        return timed(self._embed)

    def _embed(self) -> None:
        with SharedFolder(self.folder / "features", {}, skip_existing=False) as shared:
            writer = open_writer("npz", shared, self.encoder, self.options)
            summary = embed_files(self.encoder, walk_folder(str(self.folder / "audio")), shared, writer, self.options)
        assert not summary.rejects


def write_model(config: Any, params: dict, folder: Path) -> None:
    """What transformers' from_pretrained reads."""
    flat = traverse_util.flatten_dict({"encoder": jax.tree.map(np.asarray, params)}, sep="/")
    tensors = write_tensors(flat, key_table(config.model), {})
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(write_config(config, {})))
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(contiguous, folder / TENSORS, metadata={"format": "pt"})


if __name__ == "__main__":
    side = Ours()
    serve({"prepare": side.prepare, "work": side.work, "memory": memory})
