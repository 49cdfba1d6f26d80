"""Probes on stored features: many at once in one program, chosen on validation alone."""
