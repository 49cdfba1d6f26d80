"""Self-supervised learning of music audio in JAX: music2vec and musicHuBERT."""

__version__ = "0.1.0"
