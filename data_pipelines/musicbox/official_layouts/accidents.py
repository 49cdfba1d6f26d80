"""What happens to downloads besides the known defects: a file missing, one empty, one cut off."""

from data_pipelines.musicbox.official_layouts.layout import Layout


def damage(layout: Layout) -> None:
    """Three of the data set's sound files, of the training part where it is given, are spoilt; its rows lose them."""
    files = sorted({row.file for row in layout.rows if row.part not in ("valid", "test")} - set(layout.defects))
    missing, empty, cut = (files[n * len(files) // 4] for n in (1, 2, 3))
    (layout.folder / missing).unlink()
    (layout.folder / empty).write_bytes(b"")
    (layout.folder / cut).write_bytes((layout.folder / cut).read_bytes()[:30])
    layout.defects |= {missing: "missing", empty: "empty", cut: "cut off in the file's header"}
    layout.rows = [row for row in layout.rows if row.file not in (missing, empty, cut)]
