"""Which evaluation recordings a model heard in pretraining: audio fingerprints, an index of them, and the proof."""
