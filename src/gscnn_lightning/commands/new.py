"""``gscnn new``."""

from pathlib import Path


def new(
    data_dir: Path,
    /,
    out: Path | None = None,
    backbone: str = "tf_efficientnet_lite0",
    epochs: int = 50,
    leave_out_unpaired: bool = False,
) -> None:
    """Look at a folder of images and write the config and class table to train on it.

    Finds masks of ids or colours, outlines of COCO, YOLO and Label Studio, tables of Hugging Face, splits by folders or
    lists, names of classes in text files, and known layouts such as that of Cityscapes. What the folder does not tell
    is assumed, and said. The folder is only read, and no file is overwritten.

    Examples:
      gscnn new photos
      gscnn new photos --out first --epochs 20
      gscnn-fit --config first/photos.yaml

    Args:
        data_dir: folder with images and masks or outlines, however they are arranged.
        out: folder for NAME.yaml, classes.yaml and the lists of the splits, NAME being that of the data; by default
            NAME_config in the working directory.
        backbone: of the network, any that timm has.
        epochs: of the training.
        leave_out_unpaired: leave out images without masks, and masks without images, in place of refusing them.

    Raises:
        GSCNNError: nothing can be made of what is there; the message says why.
    """
    import shlex

    from rich.text import Text

    from gscnn_lightning.data.regions import RegionSource
    from gscnn_lightning.drafting import draft, write_draft
    from gscnn_lightning.drafting.draft import share_text, sizes_text
    from gscnn_lightning.drafting.polygons import outside_text
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.fit_settings import data_module
    from gscnn_lightning.terminal import new_table, progress, say

    if epochs < 1:
        raise SettingError(f"epochs is {epochs}: give a number of 1 or more")
    with progress(None, "masks") as move:
        drafted, folder = draft(
            data_dir, out, leave_out_unpaired, lambda done, total: move(done, total, "reading masks")
        )
    written = write_draft(drafted, folder, backbone, epochs)
    config = folder / drafted.config
    try:
        data = data_module(["--config", str(config)])
        data.setup("fit")
    except BaseException:
        for path in written:
            path.unlink()
        raise
    table = new_table(f"found in {drafted.settings['root']}")
    table.add_column("what")
    table.add_column("")
    train, val = (len(data.datasets[split]) for split in ("train", "val"))
    rows = [*drafted.found, ("sizes", sizes_text(drafted.sizes)), ("frames", f"{train} train, {val} validate")]
    if isinstance(source := data.datasets["train"].source, RegionSource):
        rows.append(("in no outline", outside_text(source)))
    for heading, text in rows:
        table.add_row(heading, Text(text))
    say(table)
    if drafted.table is not None or drafted.objects:
        classes = new_table("classes")
        for heading in ("class", "in the masks" if drafted.table else "outlines", "share" if drafted.table else ""):
            classes.add_column(heading)
        for row in drafted.table.rows[:40] if drafted.table else ():
            values = ", ".join(str(value).replace(" ", "") for value in row.values[:4])
            classes.add_row(Text(row.name), values, share_text(drafted.table.counts if drafted.table else None, row))
        for name, number in drafted.objects.most_common(40):
            classes.add_row(Text(name), str(number))
        say(classes)
    for sentence in drafted.assumed:
        say(f"assumed: {sentence}")
    for path in written:
        say(f"written: {path}")
    shown = shlex.quote(str(config.relative_to(Path.cwd()) if config.is_relative_to(Path.cwd()) else config))
    say(f"look:  gscnn data preview --config {shown}")
    say(f"train: gscnn-fit --config {shown}")
