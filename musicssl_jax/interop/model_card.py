"""README.md of an exported folder: what the model is, what it was trained on and how."""

import json
from collections.abc import Mapping
from pathlib import Path

from musicssl_jax import __version__
from musicssl_jax.interop.extras import without_paths
from musicssl_jax.interop.pretrained import Pretrained
from musicssl_jax.models.conv_encoder import hop_and_receptive_field

NAMES = {"data2vec": ("music2vec", "data2vec 1.0"), "hubert": ("musicHuBERT", "HuBERT")}


def model_card(model: Pretrained, *, license: str, scores: Mapping[str, float]) -> str:
    """Markdown with the hub's front matter. A licence stands there only if the user gave one."""
    config = without_paths(model.config)
    trained_here = model.origin.kind == "run"
    name, method = NAMES[config.objective]
    maker = f"musicssl_jax {__version__}"
    size = sum(value.size for value in model.encoder.values())
    sections = [
        _front_matter(license),
        f"# {config.name if trained_here else model.origin.where}",
        f"{f'A {name} encoder' if trained_here else 'An encoder'} of audio ({method}), "
        f"{f'trained with {maker}' if trained_here else f'converted with {maker}'}: {size / 1e6:.2f}M parameters, "
        f"{config.model.layers} blocks of width {config.model.width}, audio at {config.data.sample_rate} Hz, "
        f"{_frame_rate(model):g} frames a second.",
        _usage(model),
        f"## Training\n\n{_training(model)}",
        f"## Data\n\n{_data(model)}",
        f"## Scores\n\n{_scores(scores)}",
        "## Licence\n\n" + (license or "Not stated by whoever exported this model; ask them before you use it."),
    ]
    if trained_here:
        sections.append("## Config\n\n```json\n" + json.dumps(config.to_dict(), indent=2) + "\n```")
    return "\n\n".join(sections) + "\n"


def _front_matter(license: str) -> str:
    lines = ["library_name: transformers", "pipeline_tag: feature-extraction", "tags:", "- music", "- audio"]
    return "\n".join(["---", *([f"license: {json.dumps(license)}"] if license else []), *lines, "---"])


def _frame_rate(model: Pretrained) -> float:
    return model.config.data.sample_rate / hop_and_receptive_field(model.config.model.conv_layers)[0]


def _usage(model: Pretrained) -> str:
    rate = model.config.data.sample_rate
    return f"""```python
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
model = AutoModel.from_pretrained(FOLDER)
inputs = extractor(waveform, sampling_rate={rate}, return_tensors="pt")  # waveform: mono, {rate} Hz
hidden_states = model(**inputs, output_hidden_states=True).hidden_states  # {model.config.model.layers + 1} layers
```

Which layer serves a task best differs from task to task: try them all. In training, waveforms were
{"normalised to zero mean and unit variance" if model.config.data.normalize else "used as they are"}."""


def _training(model: Pretrained) -> str:
    if model.origin.kind != "run":
        updates = f", after {model.step} updates" if model.step else ""
        return (
            f"Converted from {model.origin.kind} ({model.origin.where}){updates}; how it was trained is not known here."
        )
    config = model.config
    begun = f" It began with the model {Path(config.init_from).name}." if config.init_from else ""
    seconds = model.step * config.batch.clips * config.data.crop_seconds
    return (
        f"{model.step} updates of {config.batch.clips} clips of {config.data.crop_seconds:g} s: "
        f"{seconds / 3600:,.1f} hours of audio heard.{begun}"
    )


def _data(model: Pretrained) -> str:
    if not model.data:
        return "Not known to this export."
    hours = model.data.get("hours") or []
    size = f"{sum(hours):,.2f} hours of training music" if hours else "Training music of unknown length"
    builds = ", ".join(str(fingerprint.get("build_id")) for fingerprint in model.data.get("fingerprints", []))
    return f"{size} (data sets built as {builds}). Describe the music and its rights here."


def _scores(scores: Mapping[str, float]) -> str:
    if not scores:
        return "Not evaluated."
    return "\n".join(["| task | score |", "|---|---|", *(f"| {task} | {value:g} |" for task, value in scores.items())])
