"""MTG-Jamendo: a clone's `data/` and the low-bitrate audio beside it, `00..99/<id>.low.mp3` (44.1 kHz mono).

Split tables end their lines with CRLF and have a tag in every column from the sixth on; `data/autotagging.tsv` is the
text that a symbolic link becomes where git can make none. The tables of whole categories have tags that no split has.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator, write_text
from data_pipelines.musicbox.official_layouts.sounds import write_mp3
from data_pipelines.musicbox.official_layouts.tagged_sounds import ingredients_of, tagged_sound, tags_of

RATE = 44100
# Tags of the official split-0, which are all in train, validation and test (data/splits/split-0 of the repository).
_GENRES = (
    "60s 70s 80s 90s acidjazz alternative alternativerock ambient atmospheric blues bluesrock bossanova breakbeat "
    "celtic chanson chillout choir classical classicrock club contemporary country dance darkambient darkwave "
    "deephouse disco downtempo drumnbass dub dubstep easylistening edm electronic electronica electropop ethno "
    "eurodance experimental folk funk fusion groove grunge hard hardrock hiphop house idm improvisation indie "
    "industrial instrumentalpop instrumentalrock jazz jazzfusion latin lounge medieval metal minimal newage "
    "newwave orchestral pop popfolk poprock postrock progressive psychedelic punkrock rap reggae rnb rock "
    "rocknroll singersongwriter soul soundtrack swing symphonic synthpop techno trance triphop world worldfusion"
)
GENRES = tuple(_GENRES.split())
_INSTRUMENTS = (
    "accordion acousticbassguitar acousticguitar bass beat bell bongo brass cello clarinet classicalguitar "
    "computer doublebass drummachine drums electricguitar electricpiano flute guitar harmonica harp horn keyboard "
    "oboe orchestra organ pad percussion piano pipeorgan rhodes sampler saxophone strings synthesizer trombone "
    "trumpet viola violin voice"
)
INSTRUMENTS = tuple(_INSTRUMENTS.split())
_MOODS = (
    "action adventure advertising background ballad calm children christmas commercial cool corporate dark deep "
    "documentary drama dramatic dream emotional energetic epic fast film fun funny game groovy happy heavy "
    "holiday hopeful inspiring love meditative melancholic melodic motivational movie nature party positive "
    "powerful relaxing retro romantic sad sexy slow soft soundscape space sport summer trailer travel upbeat "
    "uplifting"
)
MOODS = tuple(_MOODS.split())
_TOP_50 = (
    "alternative ambient atmospheric chillout classical dance downtempo easylistening electronic experimental "
    "folk funk hiphop house indie instrumentalpop jazz lounge metal newage orchestral pop popfolk poprock reggae "
    "rock soundtrack techno trance triphop world acousticguitar bass computer drummachine drums electricguitar "
    "electricpiano guitar keyboard piano strings synthesizer violin voice emotional energetic film happy relaxing"
)
TOP_50 = tuple(_TOP_50.split())
CATEGORIES = {"genre": GENRES, "instrument": INSTRUMENTS, "moodtheme": MOODS}
PREFIXES = {"genre": "genre", "instrument": "instrument", "moodtheme": "mood/theme"}
NOT_IN_SPLITS = {"instrument": "ukulele", "moodtheme": "mellow"}
TASKS = ("top50tags", "genre", "instrument", "moodtheme")
ORIGINAL, COPY = 214, 517  # two tracks of the training part with the same audio
_PARTS = {"train": ("train", 48), "valid": ("validation", 16), "test": ("test", 16)}
_COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")


class Track(NamedTuple):
    number: int
    part: str
    artist: int
    ingredients: tuple[int, ...]
    seconds: float

    @property
    def path(self) -> str:
        return f"{self.number % 100:02d}/{self.number}.mp3"

    @property
    def audio(self) -> str:
        return self.path.replace(".mp3", ".low.mp3")


def tracks(size: Size) -> Iterator[Track]:
    """Artists belong to one part; numbers have from three to seven digits."""
    for place, (part, (_, count)) in enumerate(_PARTS.items()):
        for n in range(count * size.clips):
            number = 214 + 101 * (3 * n + place) + (1_000_000 if n % 5 == 4 else 0)
            shown = ingredients_of(part, 0 if number == COPY else n)
            yield Track(number, part, 10 + 1000 * place + n // 2, shown, round(40 + 7.3 * n, 1))


def tags(track: Track, task: str) -> list[str]:
    """The track's tags in the task, or in all of them ("all"), as the split files spell them."""
    shown = [(c, tag) for c, names in CATEGORIES.items() for tag in tags_of(track.ingredients, names)]
    wanted = {"top50tags": lambda c, tag: tag in TOP_50, "all": lambda c, tag: True}.get(task, lambda c, tag: c == task)
    return [f"{PREFIXES[category]}---{tag}" for category, tag in shown if wanted(category, tag)]


def write_mtg_jamendo(folder: Path, seed: int, size: Size) -> Layout:
    """Tasks mtg_top50, mtg_genre, mtg_instrument and mtg_moodtheme."""
    layout = Layout(folder)
    everything = sorted(tracks(size))
    for track in everything:
        rng = generator(seed, ORIGINAL if track.number == COPY else track.number)
        write_mp3(folder / track.audio, tagged_sound(track.ingredients, size.seconds / 3, RATE, rng), RATE)
        if track.number == COPY:
            layout.defects[track.audio] = f"the same audio as track {ORIGINAL}"
    tables = {"data/raw_30s_cleantags_50artists.tsv": _table(everything, "all")}
    tables["data/autotagging.tsv"] = "raw_30s_cleantags_50artists.tsv"
    for task in (*TASKS, "all"):
        file = "autotagging" if task == "all" else f"autotagging_{task}"
        for part, (name, _) in _PARTS.items():
            rows = [track for track in everything if track.part == part and tags(track, task)]
            tables[f"data/splits/split-0/{file}-{name}.tsv"] = _table(rows, task)
            layout.rows += [_row(track, task) for track in rows if task in TASKS]
    for task in TASKS:
        tables[f"data/autotagging_{task}.tsv"] = _table(everything, task, NOT_IN_SPLITS.get(task))
    write_text(folder, tables)
    return layout


def _row(track: Track, task: str) -> Row:
    name = f"mtg_{task.removesuffix('tags')}"
    return Row(name, track.part, track.audio, tags(track, task), f"artist_{track.artist:06d}")


def _table(rows: Sequence[Track], task: str, extra: str | None = None) -> str:
    """extra: a tag that the last track has besides."""
    added = [f"{PREFIXES[task]}---{extra}"] if extra else []
    lines = [_line(track, tags(track, task) + (added if track == rows[-1] else [])) for track in rows]
    return "\t".join(_COLUMNS) + "\r\n" + "".join(lines)


def _line(track: Track, labels: Sequence[str]) -> str:
    ids = f"track_{track.number:07d}", f"artist_{track.artist:06d}", f"album_{track.artist + 20:06d}"
    return "\t".join([*ids, track.path, str(track.seconds), *labels]) + "\r\n"
