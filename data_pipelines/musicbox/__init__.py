"""A small music synthesiser for demos and tests: 60-second tracks with their whole truth, from a seed.

What is played (`score`) follows from the seed; how it sounds (`instruments`) from the family as well. The two
families share instrument classes (organ, bowed, brass, flute, plucked, bell: how a note begins, lasts and ends)
and nothing else: "additive" sums partials, "plucked" is frequency modulation and the plucked-string algorithm.
A probe trained on one family and tested on the other therefore has labels in common, and no sound.
"""

from data_pipelines.musicbox.render import FAMILIES, Family, ensure_musicbox, render_track, write_musicbox

__all__ = ["FAMILIES", "Family", "ensure_musicbox", "render_track", "write_musicbox"]
