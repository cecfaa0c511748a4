"""The folder of the page: an exported network, the page's own files, a first picture, and onnxruntime-web."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.data.scenes.draw import draw_scene
from gscnn_lightning.demo.runtime import PACKAGE, VERSION, copy_runtime
from gscnn_lightning.demo.serve import HEADERS
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.errors import ExportError
from gscnn_lightning.exporting.facts import Facts
from gscnn_lightning.exporting.graph import BOUNDARY, INPUT, LABELS
from gscnn_lightning.exporting.network import ExportedNetwork
from gscnn_lightning.version import __version__

MODEL, ABOUT, EXAMPLE = "model.onnx", "model.json", "example.png"

_PAGE = ("app.js", "file.js", "worker.js", "style.css", "icon.svg")
_DRAWN = (512, 1024)
_BYTES = 256


def read_network(path: Path) -> Facts:
    """What an exported network says of itself, once it has been opened.

    Raises:
        ExportError: the file is missing, damaged, not of `gscnn export`, or for another program than browsers have.
    """
    if path.suffix.lower() != ".onnx":
        raise ExportError(f"{path} is no ONNX file: gscnn export CHECKPOINT --out model.onnx, and give that")
    facts = ExportedNetwork(str(path)).facts
    if len(facts.class_names) > _BYTES:
        raise ExportError(
            f"{path} has {len(facts.class_names)} classes, and the page reads label maps of {_BYTES} at most"
        )
    return facts


def make_site(
    model: Path,
    out: Path,
    title: str = "Semantic segmentation",
    picture: Path | None = None,
    runtime: Path | None = None,
    webgpu: bool = True,
) -> list[Path]:
    """Write the folder of a page that segments pictures in the browser; what is in it by these names is replaced.

    Args:
        model: a file of ``gscnn export``.
        out: folder; it is made.
        title: heading of the page.
        picture: the first picture that is seen; by default that of the export, or a drawn street.
        runtime: onnxruntime-web, see `copy_runtime`.
        webgpu: with what computes on the graphics processor.

    Returns:
        The files, with the largest first.

    Raises:
        GSCNNError: network or picture cannot be read, or onnxruntime-web is not there.
    """
    facts = read_network(model)
    # A street as those that exports are compared on.
    first = draw_scene(7, size=_DRAWN)[0] if picture is None else read_picture(picture)
    copy_runtime(out / "ort", runtime, webgpu)
    shutil.copyfile(model, out / MODEL)
    write_picture(out / EXAMPLE, first, overwrite=True)
    gates = [f"gate_{index + 1}" for index in range(facts.gates)]
    about = {
        "model": MODEL,
        "example": EXAMPLE,
        "webgpu": webgpu,
        "input": INPUT,
        "size": facts.size,
        "smallest": facts.smallest,
        "outputs": [LABELS, *([BOUNDARY] if facts.shape_stream else []), *gates],
        "boundary": facts.shape_stream,
        "gates": gates,
        "classes": [
            {"name": name, "color": color} for name, color in zip(facts.class_names, facts.class_colors, strict=True)
        ],
    }
    (out / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    page = files("gscnn_lightning.demo") / "page"
    for name in _PAGE:
        (out / name).write_bytes((page / name).read_bytes())
    template = Environment(autoescape=True).from_string((page / "index.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        about=f"{len(facts.class_names)} classes, computed in this browser. Nothing is sent anywhere.",
        footer=f"Made with gscnn-lightning {__version__}; {PACKAGE} {VERSION if runtime is None else ''} (MIT).",
    )
    (out / "index.html").write_text(text, encoding="utf-8")
    # Some hosts of static pages read their headers from a file of this name; others pass it over.
    lines = ["/*", *(f"  {name}: {value}" for name, value in HEADERS.items())]
    (out / "_headers").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = [path for path in out.rglob("*") if path.is_file()]
    return sorted(made, key=lambda path: -path.stat().st_size)
