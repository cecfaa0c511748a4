"""What an exported file says of itself, as plain data that any program can read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gscnn_lightning.classes import ClassTable
from gscnn_lightning.errors import ExportError, GSCNNError
from gscnn_lightning.hub_files import HUB, weights_file
from gscnn_lightning.run_folder import run_of_checkpoint
from gscnn_lightning.shipped_configs import read_config
from gscnn_lightning.version import __version__

FORMAT = "gscnn-lightning export 1"
_MOST_TEXT = 1_000_000


@dataclass(frozen=True)
class Facts:
    """Metadata of an exported network. Each is a text of its name in an ONNX file, in JSON but for ``format``.

    Attributes:
        class_names: K names.
        class_colors: K RGB colours, 0 to 255.
        ignore_index: label of void pixels in training.
        boundary_tolerances: distances of the boundary F-score, in pixels or fractions of the diagonal below 1.
        shape_stream: whether there is a boundary map.
        gates: number of gates among the outputs.
        image_gradient: what the fusion sees beside the boundary map.
        backbone: timm name of the regular stream.
        crop_size: height and width that it was trained on; None if the checkpoint lies in no run that tells.
        size: height and width that the file is for; None if it takes any.
        smallest: height and width in pixels that pictures have at least.
        int8: whether convolutions compute in 8 bits.
        checkpoint: SHA-256 of the checkpoint.
        version: of this library.
    """

    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    ignore_index: int
    boundary_tolerances: tuple[float, ...]
    shape_stream: bool
    gates: int
    image_gradient: str
    backbone: str
    crop_size: tuple[int, int] | None
    size: tuple[int, int] | None
    smallest: int = 32
    int8: bool = False
    checkpoint: str = ""
    version: str = __version__

    def texts(self) -> dict[str, str]:
        """Every fact as a text by its name, as ONNX has them."""
        return {"format": FORMAT, **{name: json.dumps(value) for name, value in asdict(self).items()}}


def facts_of(task: Any, checkpoint: str, gates: bool, size: tuple[int, int] | None) -> Facts:  # noqa: ANN401
    """What is said of the export of a checkpoint.

    Args:
        task: of the checkpoint.
        checkpoint: path of the file.
        gates: whether they are outputs.
        size: height and width, if they are fixed.
    """
    h = task.settings
    with weights_file(checkpoint).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Facts(
        tuple(task.class_names),
        tuple((int(r), int(g), int(b)) for r, g, b in task.class_colors),
        h.ignore_index,
        tuple(h.boundary_tolerances),
        bool(h.shape_stream),
        3 if gates else 0,
        h.image_gradient if h.shape_stream else "none",
        h.backbone,
        _crop_size(checkpoint),
        size,
        checkpoint=digest,
    )


def read_facts(texts: Mapping[str, str], name: str) -> Facts:
    """The facts of a file, checked.

    Args:
        texts: metadata of the file.
        name: what messages call it.

    Raises:
        ExportError: they are missing or none that `Facts.texts` has written.
    """
    if texts.get("format") != FORMAT:
        told = texts.get("format", "")[:60]
        raise ExportError(
            f"{name} was not made by gscnn export{f' of this version ({told!r})' if told else ''}: it does not say "
            "what its classes are. Give a checkpoint, or a file that gscnn export has written"
        )
    try:
        if sum(map(len, texts.values())) > _MOST_TEXT:
            raise ValueError("too much text")
        found = {key: json.loads(texts[key]) for key in Facts.__annotations__}
        facts = Facts(
            **{
                **found,
                "class_names": tuple(map(_text, found["class_names"])),
                "class_colors": tuple((_byte(r), _byte(g), _byte(b)) for r, g, b in found["class_colors"]),
                "boundary_tolerances": tuple(map(float, found["boundary_tolerances"])),
                "size": _sides(found["size"]),
                "crop_size": _sides(found["crop_size"]),
                "ignore_index": int(found["ignore_index"]),
                "gates": int(found["gates"]),
                "smallest": int(found["smallest"]),
            }
        )
        ClassTable(facts.class_names, facts.class_colors)
        if len(facts.class_names) < 2 or len(facts.class_colors) != len(facts.class_names) or facts.gates not in (0, 3):
            raise ValueError("classes or gates")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise ExportError(
            f"{name} says what it is in a way that cannot be read ({reason}): it was altered. Export it again"
        ) from error
    return facts


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a class name is no text")
    return value


def _byte(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError("a colour is not 0 to 255")
    return value


def _sides(value: Any) -> tuple[int, int] | None:  # noqa: ANN401
    if value is None:
        return None
    height, width = map(int, value)
    if min(height, width) < 1:
        raise ValueError("a size is below 1")
    return height, width


def _crop_size(checkpoint: str) -> tuple[int, int] | None:
    """Crops of the run that a checkpoint lies in, by its config."""
    run = None if checkpoint.startswith(HUB) else run_of_checkpoint(checkpoint)
    try:
        data = read_config(str(run.config)).get("data") if run is not None else None
        return _sides(data["init_args"]["crop_size"]) if isinstance(data, dict) else None
    except (GSCNNError, KeyError, TypeError, ValueError):  # the run's config is somebody's file, and this a mere hint
        return None
