"""Music information retrieval: what a frozen encoder is worth."""
