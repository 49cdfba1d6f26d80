"""Where the data sets of the tasks can be had, under which licence, and how much there should be of them.

Nothing here is fetched by any command: it is what `musicssl evaluate --check-data` says.
"""

from typing import NamedTuple

from musicssl_jax.mir.tasks.task import PARTS, Part, ProtocolName


class Source(NamedTuple):
    """title: of the data set. how: steps to take, in the folder of the data set. disk: unpacked. caveats: what usually
    goes wrong. unverified: what of the data `--check-data` cannot check, and why."""

    title: str
    licence: str
    disk: str
    how: tuple[str, ...]
    caveats: tuple[str, ...]
    unverified: str


SOURCES = {
    "magnatagatune": Source(
        title="MagnaTagATune",
        licence="CC BY-NC-SA 3.0",
        disk="3 GB",
        how=(
            "https://mirg.city.ac.uk/datasets/magnatagatune/mp3.zip.001, .002, .003: cat mp3.zip.00? > mp3.zip; "
            "unzip mp3.zip -d mp3",
            "https://mirg.city.ac.uk/datasets/magnatagatune/annotations_final.csv",
            "or huggingface.co/datasets/m-a-p/MTT (MARBLE v2: audio and MTT.*.jsonl)",
        ),
        caveats=("the host's certificate is often invalid", "3 of the 25 863 mp3s hold no audio and are left out"),
        unverified="no official hashes: names and counts alone",
    ),
    "gtzan": Source(
        title="GTZAN and GTZAN-Rhythm",
        licence="none stated; excerpts of commercial recordings, for research",
        disk="1.3 GB",
        how=(
            "kaggle datasets download -d andradaolteanu/gtzan-dataset-music-genre-classification; unzip it here",
            "beats: git clone https://github.com/TempoBeatDownbeat/gtzan_tempo_beat, or GTZAN-Rhythm_v2 (JAMS) of "
            "anasynth.ircam.fr",
            "or huggingface.co/datasets/m-a-p/GTZAN (MARBLE v2: audio, GTZANGenre.*.jsonl, GTZANBeatTracking.*.jsonl)",
        ),
        caveats=(
            "the first host (opihi.cs.uvic.ca/sound/genres.tar.gz) is gone; anasynth.ircam.fr is often away",
            "jazz.00054.wav cannot be read in the copy of Kaggle; MARBLE v1 leaves it out, too",
            "TFDS's gtzan opens only with TensorFlow, unless it was prepared with a Tensor in place of Audio",
        ),
        unverified="no official hashes: the split's names and counts alone",
    ),
    "giantsteps": Source(
        title="GiantSteps key and GiantSteps-MTG key",
        licence="none stated; previews of Beatport, for research",
        disk="3 GB",
        how=(
            "git clone https://github.com/GiantSteps/giantsteps-key-dataset; bash audio_dl.sh in it (test)",
            "git clone https://github.com/GiantSteps/giantsteps-mtg-key-dataset; bash audio_dl.sh in it (train)",
            "or the mp3s from https://www.cp.jku.at/datasets/giantsteps/backup/ and .../mtg_key_backup/",
            "or huggingface.co/datasets/m-a-p/GS (MARBLE v2: clips and GS.*.jsonl; scored by clip then)",
        ),
        caveats=("Beatport's own host is gone: the scripts go on to the second one",),
        unverified="",
    ),
    "emomusic": Source(
        title="EmoMusic",
        licence="annotations: none stated, for research; music: Creative Commons, from the Free Music Archive",
        disk="1 GB",
        how=(
            "https://cvml.unige.ch/databases/emoMusic/clips_45sec.tar.gz and annotations.tar.gz: tar -xf both here",
            "or huggingface.co/datasets/m-a-p/EMO (MARBLE v2: audio and EMO.*.jsonl)",
        ),
        caveats=("the host's certificate is often invalid",),
        unverified="no official hashes: names and counts alone",
    ),
    "nsynth": Source(
        title="NSynth",
        licence="CC BY 4.0",
        disk="39 GB (archives: 25 GB)",
        how=(
            "http://download.magenta.tensorflow.org/datasets/nsynth/nsynth-{train,valid,test}.jsonwav.tar.gz: "
            "tar -xf each here",
        ),
        caveats=("TFDS's nsynth/full opens only with TensorFlow, unless prepared with a Tensor in place of Audio",),
        unverified="no official hashes of the notes: names and counts alone",
    ),
    "vocalset": Source(
        title="VocalSet",
        licence="CC BY 4.0",
        disk="3 GB",
        how=("https://zenodo.org/record/1203819/files/VocalSet11.zip: unzip it here",),
        caveats=(
            "28 files lack their singer in the name (known), 5 are doubles or not of the paper (left out)",
            "version 1.2 (zenodo 1442513) holds everything three times; data_by_singer is read",
        ),
        unverified="no official list: that every singer and technique is there, no more",
    ),
    "mtg_jamendo": Source(
        title="MTG-Jamendo",
        licence="audio: Creative Commons by track (audio_licenses.txt); metadata: CC BY-NC-SA 4.0",
        disk="156 GB in low quality, 508 GB in full; mood and theme alone 46 GB or 152 GB",
        how=(
            "git clone https://github.com/MTG/mtg-jamendo-dataset; in it: python3 scripts/download/download.py "
            "--dataset raw_30s --type audio-low ../audio-low --unpack --remove (make ../audio-low first)",
            "mood and theme alone: --dataset autotagging_moodtheme",
        ),
        caveats=(
            "full quality (--type audio) gives other scores than the published ones, which are of audio-low",
            "music2vec's and others' pretraining sets contain Jamendo: see what evaluate says of contamination",
        ),
        unverified="the hashes of 156 GB are left to download.py, which checks them: names and counts alone",
    ),
}

_OFFICIAL = {
    "mtt_top50": (18709, 1825, 5329),
    "gtzan_genre": (443, 197, 290),
    "gtzan_beats": (443, 197, 290),
    "giantsteps_key": (923, 236, 604),
    "emomusic": (504, 115, 125),
    "nsynth_pitch": (289205, 12678, 4096),
    "nsynth_instrument": (289205, 12678, 4096),
    "mtg_top50": (32136, 10888, 11356),
    "mtg_genre": (32572, 11043, 11479),
    "mtg_instrument": (14395, 5466, 5115),
    "mtg_moodtheme": (9949, 3802, 4231),
}


def official_counts(task: str, protocol: ProtocolName) -> dict[Part, int] | None:
    """Recordings that the official lists have in each part, unusable ones among them. None: there are no lists."""
    if task not in _OFFICIAL:
        return None
    counts: dict[Part, int] = dict(zip(PARTS, _OFFICIAL[task], strict=True))
    if protocol == "marble-v1" and task.startswith("gtzan"):
        counts["train"] -= 1  # the recording that cannot be read is not in MARBLE's list
    return counts
