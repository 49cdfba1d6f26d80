"""Networks and objectives; they know nothing of files, meshes or where a config came from."""
