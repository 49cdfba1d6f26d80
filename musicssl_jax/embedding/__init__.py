"""From tracks of any length to their features: windows, batches across tracks, pooling, files."""
