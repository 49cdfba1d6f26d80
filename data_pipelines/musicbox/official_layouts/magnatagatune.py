"""MagnaTagATune: `mp3/<hex digit>/<song>-<start>-<end>.mp3` (16 kHz mono) and `annotations_final.csv`, which is a TSV.

The digit is the split (0-b train, c valid, d-f test). Clips without any of the 50 tags stay in, and three files are
empty or cut off, under the names that are known to be so.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator, write_text
from data_pipelines.musicbox.official_layouts.sounds import write_mp3, write_unreadable
from data_pipelines.musicbox.official_layouts.tagged_sounds import ingredients_of, tagged_sound, tags_of

RATE = 16000
# The header of the official file, between clip_id and mp3_path.
_TAGS = (
    "no voice,singer,duet,plucking,hard rock,world,bongos,harpsichord,female singing,clasical,sitar,chorus,"
    "female opera,male vocal,vocals,clarinet,heavy,silence,beats,men,woodwind,funky,no strings,chimes,foreign,"
    "no piano,horns,classical,female,no voices,soft rock,eerie,spacey,jazz,guitar,quiet,no beat,banjo,electric,"
    "solo,violins,folk,female voice,wind,happy,ambient,new age,synth,funk,no singing,middle eastern,trumpet,"
    "percussion,drum,airy,voice,repetitive,birds,space,strings,bass,harpsicord,medieval,male voice,girl,keyboard,"
    "acoustic,loud,classic,string,drums,electronic,not classical,chanting,no violin,not rock,no guitar,organ,"
    "no vocal,talking,choral,weird,opera,soprano,fast,acoustic guitar,electric guitar,male singer,man singing,"
    "classical guitar,country,violin,electro,reggae,tribal,dark,male opera,no vocals,irish,electronica,horn,"
    "operatic,arabic,lol,low,instrumental,trance,chant,strange,drone,synthesizer,heavy metal,modern,disco,bells,"
    "man,deep,fast beat,industrial,hard,harp,no flute,jungle,pop,lute,female vocal,oboe,mellow,orchestral,viola,"
    "light,echo,piano,celtic,male vocals,orchestra,eastern,old,flutes,punk,spanish,sad,sax,slow,male,blues,vocal,"
    "indian,no singer,scary,india,woman,woman singing,rock,dance,piano solo,guitars,no drums,jazzy,singing,cello,"
    "calm,female vocals,voices,different,techno,clapping,house,monks,flute,not opera,not english,oriental,beat,"
    "upbeat,soft,noise,choir,female singer,rap,metal,hip hop,quick,water,baroque,women,fiddle,english"
)
TAGS = tuple(_TAGS.split(","))
_TOP_50 = (
    "guitar,classical,slow,techno,strings,drums,electronic,rock,fast,piano,ambient,beat,violin,vocal,synth,"
    "female,indian,opera,male,singing,vocals,no vocals,harpsichord,loud,quiet,flute,woman,male vocal,no vocal,"
    "pop,soft,sitar,solo,man,classic,choir,voice,new age,dance,male voice,female vocal,beats,harp,cello,no voice,"
    "weird,country,metal,female voice,choral"
)
TOP_50 = tuple(_TOP_50.split(","))
UNREADABLE = {
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3": b"",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3": b"",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3": (
        b"\xff\xfb\x90\x00\x00\x00\x00"
    ),
}
_SONGS = {"train": ("0123456789ab", 2), "valid": ("c", 8), "test": ("def", 4)}  # digits, songs of each
_ARTISTS = ("magnus_ahrends", "the_tin_whistles", "duo_marais", "strojovna_nine", "ella_vandermeer", "kapelle_am_teich")
_RARE = ("lol", "monks", "birds")  # tags outside the 50


class Clip(NamedTuple):
    part: str
    file: str
    tags: list[str]
    ingredients: tuple[int, ...]
    song: str


def clips(size: Size) -> Iterator[Clip]:
    """Two clips of every song; in each part the last song's second clip has no tag of the 50."""
    for part, (digits, songs) in _SONGS.items():
        total = len(digits) * songs * size.clips
        for song in range(total):
            digit = digits[song % len(digits)]
            artist = _ARTISTS[(song + len(part)) % len(_ARTISTS)]
            name = f"{digit}/{artist}-{part}_sessions_{song // 12 + 1}-{song % 12 + 1:02d}-piece_no__{song + 1}"
            for take in range(2):
                start = 29 * (take + song % 4)
                ingredients = ingredients_of(part, 2 * song + take)
                if (song, take) == (total - 1, 1):
                    yield Clip(part, f"{name}-{start}-{start + 29}.mp3", [_RARE[len(part) % 3]], (), name)
                else:
                    tags = tags_of(ingredients, TOP_50)
                    yield Clip(part, f"{name}-{start}-{start + 29}.mp3", tags, ingredients, name)


def write_magnatagatune(folder: Path, seed: int, size: Size) -> Layout:
    """Task magnatagatune; a row's label is its tags of the 50."""
    layout = Layout(folder)
    lines = [_line(("clip_id", *TAGS, "mp3_path"))]
    for number, clip in enumerate(clips(size)):
        wave = tagged_sound(clip.ingredients, size.seconds / 3, RATE, generator(seed, clip.file))
        write_mp3(folder / "mp3" / clip.file, wave, RATE)
        lines.append(_annotation(2 + 3 * number, clip.tags, clip.file))
        top = [tag for tag in clip.tags if tag in TOP_50]
        layout.rows.append(Row("magnatagatune", clip.part, f"mp3/{clip.file}", top, clip.song))
        if not top:
            layout.defects[f"mp3/{clip.file}"] = "has no tag of the 50"
    for number, (file, content) in enumerate(UNREADABLE.items()):
        write_unreadable(folder / "mp3" / file, content)
        lines.append(_annotation(50000 + number, ["classical", "guitar"], file))
        layout.defects[f"mp3/{file}"] = "unreadable"
    write_text(folder, {"annotations_final.csv": "".join(lines)})
    return layout


def _annotation(clip_id: int, tags: list[str], file: str) -> str:
    return _line((str(clip_id), *("1" if tag in tags else "0" for tag in TAGS), file))


def _line(cells: tuple[str, ...]) -> str:
    return "\t".join(f'"{cell}"' for cell in cells) + "\n"
