"""Does it learn? Arms, controls that must not, and baselines that may win: see docs/learning.md.

settings.py says what is trained and how large, music.py on which music, controls.py what the controls see, training.py
trains one arm, questions.py and evaluation.py ask what its features know, verdicts.py decides, strength.py weighs,
findings.py collects, and report.py, figures.py and pictures.py show.
"""
