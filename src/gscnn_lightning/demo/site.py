"""The folder of the page: an exported network, the page's own files, a first picture, and onnxruntime-web."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import Environment

from gscnn_lightning.classes import colors_of
from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.data.scenes.draw import draw_scene
from gscnn_lightning.demo.runtime import PACKAGE, VERSION, copy_runtime
from gscnn_lightning.demo.serve import HEADERS
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.errors import SettingError, WeightsError
from gscnn_lightning.version import __version__

MODEL, ABOUT, EXAMPLE = "model.onnx", "model.json", "example.png"
LABELS, BOUNDARY, GATE = "labels", "boundary_prob", "gate_"

_REMEDY = "give a file that gscnn export has made"
_DRAWN = (512, 1024)
_PAGE = ("app.js", "file.js", "worker.js", "style.css", "icon.svg")


@dataclass(frozen=True)
class ExportedNetwork:
    """What a page has to know of an exported network.

    Attributes:
        path: the file.
        input_name: name of the image.
        input_type: "uint8" or "float32".
        layout: "NCHW" or "NHWC".
        size: height and width, if the network takes no others.
        outputs: names of those that the page reads.
        class_names: K names.
        class_colors: K RGB colours, 0 to 255.
        metadata: what else is written in the file.
    """

    path: Path
    input_name: str
    input_type: str
    layout: str
    size: tuple[int, int] | None
    outputs: tuple[str, ...]
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gates' maps among the outputs."""
        return tuple(name for name in self.outputs if name.startswith(GATE))


def read_network(path: Path) -> ExportedNetwork:
    """What an ONNX file says of itself; the network is opened as `onnxruntime` does, and not run.

    Raises:
        WeightsError: the file is missing, damaged, or not as `gscnn export` writes it.
        SettingError: the extra "export" is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingError("onnxruntime is not installed: pip install 'gscnn-lightning[export]'") from error
    if path.suffix == ".ckpt" or path.is_dir():
        raise WeightsError(f"{path} is no exported network: gscnn export {path} --out model.onnx, and give that")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: check the path")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{path} cannot be read as ONNX ({type(error).__name__}: {reason}): {_REMEDY}") from error
    inputs, outputs = session.get_inputs(), {output.name: output for output in session.get_outputs()}
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    kinds = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    layouts = {
        at: layout for at, layout in ((1, "NCHW"), (3, "NHWC")) if len(inputs) == 1 and inputs[0].shape[at:][:1] == [3]
    }
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in kinds or not layouts:
        told = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise WeightsError(f"{path} takes {told}, and not one batch of RGB images: {_REMEDY}")
    if LABELS not in outputs or outputs[LABELS].type != "tensor(uint8)":
        raise WeightsError(f"{path} gives {', '.join(outputs)}, and no {LABELS} of 8 bits: {_REMEDY}")
    layout = layouts[min(layouts)]
    sides = inputs[0].shape[2:4] if layout == "NCHW" else inputs[0].shape[1:3]
    size = (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None
    shown = (LABELS, BOUNDARY, *sorted(name for name in outputs if re.fullmatch(rf"{GATE}\d+", name)))
    names, colors = _classes(metadata, path)
    read = tuple(name for name in shown if name in outputs)
    return ExportedNetwork(path, inputs[0].name, kinds[inputs[0].type], layout, size, read, names, colors, metadata)


def _classes(metadata: Mapping[str, str], path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    try:
        names = tuple(map(str, json.loads(metadata["class_names"])))
        given = json.loads(metadata["class_colors"]) if "class_colors" in metadata else colors_of(names)
        colors = tuple((int(r), int(g), int(b)) for r, g, b in given)
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} does not name its classes ({type(error).__name__}: {error}): {_REMEDY}") from error
    if len(names) != len(colors) or not names:
        raise WeightsError(f"{path} has {len(names)} class names and {len(colors)} colours: {_REMEDY}")
    return names, colors


def make_site(
    network: ExportedNetwork,
    out: Path,
    title: str = "Semantic segmentation",
    picture: Path | None = None,
    runtime: Path | None = None,
    webgpu: bool = True,
) -> list[Path]:
    """Write the folder of a page that segments pictures in the browser; what is in it by these names is replaced.

    Args:
        network: from `read_network`.
        out: folder; it is made.
        title: heading of the page.
        picture: the first picture that is seen; by default that of the export, or a drawn street.
        runtime: onnxruntime-web, see `copy_runtime`.
        webgpu: with what computes on the graphics processor.

    Returns:
        The files, with the largest first.

    Raises:
        GSCNNError: the picture cannot be read, or onnxruntime-web is not there.
    """
    first = _first_picture(network, picture)
    copy_runtime(out / "ort", runtime, webgpu)
    shutil.copyfile(network.path, out / MODEL)
    write_picture(out / EXAMPLE, first, overwrite=True)
    about = {
        "model": MODEL,
        "example": EXAMPLE,
        "webgpu": webgpu,
        "input": {
            "name": network.input_name,
            "type": network.input_type,
            "layout": network.layout,
            "scale": 1 if network.input_type == "uint8" else 1 / 255,
        },
        "size": network.size,
        "outputs": network.outputs,
        "boundary": BOUNDARY in network.outputs,
        "gates": network.gates,
        "classes": [
            {"name": name, "color": color}
            for name, color in zip(network.class_names, network.class_colors, strict=True)
        ],
    }
    (out / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    page = files("gscnn_lightning.demo") / "page"
    for name in _PAGE:
        (out / name).write_bytes((page / name).read_bytes())
    template = Environment(autoescape=True).from_string((page / "index.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        about=f"{len(network.class_names)} classes, computed in this browser. Nothing is sent anywhere.",
        footer=f"Made with gscnn-lightning {__version__}; {PACKAGE} {VERSION if runtime is None else ''} (MIT).",
    )
    (out / "index.html").write_text(text, encoding="utf-8")
    # Some hosts of static pages read their headers from a file of this name; others pass it over.
    lines = ["/*", *(f"  {name}: {value}" for name, value in HEADERS.items())]
    (out / "_headers").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = [path for path in out.rglob("*") if path.is_file()]
    return sorted(made, key=lambda path: -path.stat().st_size)


def _first_picture(network: ExportedNetwork, picture: Path | None) -> npt.NDArray[np.uint8]:
    if picture is not None:
        return read_picture(picture)
    return draw_scene(7, size=_DRAWN)[0]
