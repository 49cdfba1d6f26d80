"""Sounds for multi-label tags: every tag stands for an ingredient that sounds or does not.

An ingredient is one of the synthesiser's voices in a low or a high register. With more tags than ingredients, several
tags share one, as "violin" and "strings" do.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.musicbox.official_layouts.sounds import VOICES, Hit, Note, Wave, mix

INGREDIENTS = 2 * len(VOICES)


def tagged_sound(ingredients: Sequence[int], seconds: float, rate: int, rng: np.random.Generator) -> Wave:
    """All ingredients at once, each with notes of its register; drums alone if there are none."""
    notes = []
    for ingredient in ingredients:
        register, voice = divmod(ingredient, len(VOICES))
        onset = float(rng.uniform(0, 0.1))
        while onset < seconds:
            duration = float(rng.choice((0.2, 0.4)))
            pitch = (41, 70)[register] + int(rng.integers(0, 13))
            notes.append(Note(onset, duration, pitch, voice, 0.09))
            onset += duration
    hits = [] if ingredients else [Hit(at, "hat") for at in np.arange(0, seconds, 0.25)]
    return mix(notes, hits, seconds, rate, rng)


def ingredients_of(part: str, number: int) -> tuple[int, ...]:
    """Three ingredients of the part's clip `number`: 16 clips in a row have them all, and pairs vary."""
    turn = number // INGREDIENTS
    second, third = {"train": (3 + turn, 10 + 2 * turn), "valid": (7, 13), "test": (5, 11)}[part]
    return tuple(sorted({number % INGREDIENTS, (number + second) % INGREDIENTS, (number + third) % INGREDIENTS}))


def tags_of(ingredients: Sequence[int], tags: Sequence[str]) -> list[str]:
    """Tag n stands for ingredient n modulo their number."""
    return [tag for n, tag in enumerate(tags) if n % INGREDIENTS in ingredients]
