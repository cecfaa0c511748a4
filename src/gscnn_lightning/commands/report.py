"""``gscnn report``."""

from collections.abc import Sequence
from pathlib import Path


def report(
    runs: Sequence[Path],
    /,
    out: Path = Path("report.html"),
    names: Sequence[str] = (),
    width: int = 640,
    overwrite: bool = False,
) -> None:
    """Write one HTML file about one or several runs: pictures, curves, classes, settings and what differs.

    The file needs nothing else: no network, no folder beside it. Several runs are compared with the first one. What a
    run does not have, such as pictures in one that was interrupted, is said in its place.

    Examples:
      gscnn report runs/camvid/version_0
      gscnn report runs/control/version_0 runs/camvid/version_0 --names [control,two-stream] --out comparison.html

    Args:
        runs: folders of runs; the others are compared with the first.
        out: HTML file to write; an earlier report is replaced.
        names: what to call the runs, by default the parts of their paths in which they differ.
        width: pictures are at most this wide, in pixels.
        overwrite: replace a file that is no report, too.

    Raises:
        GSCNNError: a run or a setting cannot be used; the message says which.
    """
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.report import is_report, render_report
    from gscnn_lightning.run_folder.run import load_runs
    from gscnn_lightning.terminal import say

    if not runs:
        raise SettingError("which run? Give the folder of one or more, such as runs/camvid/version_0")
    if width < 16:
        raise SettingError(f"width is {width}: give the width of the pictures in pixels, 16 or more")
    if out.suffix.lower() not in (".html", ".htm") or not out.absolute().parent.is_dir():
        raise SettingError(f"cannot write {out}: --out is an .html file in a folder that exists")
    if out.exists() and not overwrite and not is_report(out):
        raise SettingError(f"{out} exists and is no report: choose another --out, or replace it with --overwrite true")
    page = render_report(load_runs(runs, names), width)
    part = out.with_name(f".{out.name}.part")
    part.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files in another encoding
    part.replace(out)
    say(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
