"""What musicHuBERT predicts: front ends, codebooks, labels of crops."""
