"""Models in and out: runs of ours, transformers folders, fairseq files."""
