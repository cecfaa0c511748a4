"""Pictures of runs, made small and put into text (data URIs), and how the gallery arranges them."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from gscnn_lightning.drawing.maps import heat_map
from gscnn_lightning.run_folder.pictures import PictureFolder, read_labels, read_layer
from gscnn_lightning.run_folder.run import Run
from gscnn_lightning.scores import ImageScores

LAYERS = {
    "photo": "photo",
    "labels": "labels",
    "prediction": "prediction",
    "errors": "errors",
    "boundary_truth": "true boundary",
    "boundary": "predicted boundary",
    "gate_1": "gate 1",
    "gate_2": "gate 2",
    "gate_3": "gate 3",
}
_SHARED = ("photo", "labels", "boundary_truth")
_OWN = tuple(layer for layer in LAYERS if layer not in _SHARED)
_GATES = ("gate_1", "gate_2", "gate_3")
# Pictures of earlier epochs are limited to about this many in all, so that a report stays a few megabytes.
_MOST_IN_TIME = 72
_MOST_EPOCHS = 6

Map = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plate:
    """One picture of the gallery.

    Attributes:
        layer: key of `LAYERS`.
        src: data URI.
        alt: what it shows.
        note: caption beside the name of the layer, such as the range of a gate.
        epoch: None if it does not change in training.
    """

    layer: str
    src: str
    alt: str
    note: str = ""
    epoch: int | None = None


@dataclass
class Panel:
    """What one run makes of an image.

    Attributes:
        run: number of the run.
        scores: label and value of each score of this image.
        plates: its pictures.
        note: what is missing.
    """

    run: int
    scores: list[tuple[str, str]]
    plates: list[Plate] = field(default_factory=list)
    note: str = ""


@dataclass
class Exhibit:
    """One image in the gallery.

    Attributes:
        name: of the sample.
        width: of its pictures as shown, in pixels.
        height: likewise.
        shared: photo, labels and true boundary.
        panels: one per run.
    """

    name: str
    width: int
    height: int
    shared: list[Plate]
    panels: list[Panel]


@dataclass(frozen=True)
class Gallery:
    """Images that are looked at one after the other.

    Attributes:
        key: identifies it in the page.
        exhibits: the images.
        layers: {key: name} of the layers that at least one image has.
        epochs: those of which there are pictures, oldest first.
        notes: what is missing or left out.
    """

    key: str
    exhibits: list[Exhibit]
    layers: dict[str, str]
    epochs: list[int]
    notes: list[str]


Scorer = Callable[[ImageScores], list[tuple[str, str]]]


def fixed_gallery(runs: Sequence[Run], scorer: Scorer, width: int) -> Gallery:
    """The fixed validation images of all runs through their epochs.

    Args:
        runs: the runs.
        scorer: label and value of each score of an image.
        width: pictures are at most this wide, in pixels.
    """
    notes = [f"{run.label} has no pictures of validation images (pictures/)." for run in runs if not run.pictures]
    number = sum(len(max(run.pictures.values(), key=len)) for run in runs if run.pictures)
    most = max(1, min(_MOST_EPOCHS, _MOST_IN_TIME // max(number, 1)))
    chosen: list[dict[tuple[int, str], dict[int, PictureFolder]]] = []
    for run in runs:
        epochs = _spread(sorted(run.pictures), most)
        if len(epochs) < len(run.pictures):
            notes.append(f"{run.label} has pictures of {len(run.pictures)} epochs; {len(epochs)} of them are shown.")
        by_image: dict[tuple[int, str], dict[int, PictureFolder]] = {}
        for epoch in epochs:
            for folder in run.pictures[epoch]:
                by_image.setdefault((folder.number, folder.name), {})[epoch] = folder
        chosen.append(by_image)
    keys = sorted({key for images in chosen for key in images})
    with_pictures = [run for run in runs if run.pictures]
    exhibits = []
    for key in keys:
        sources = [images.get(key, {}) for images in chosen]
        missing = ["has no picture of this image" if run in with_pictures else "has no pictures" for run in runs]
        exhibits.append(_exhibit(key[1], runs, sources, missing, scorer, width, ranked=False))
    return _gallery("fixed", exhibits, notes)


def worst_gallery(runs: Sequence[Run], scorer: Scorer, width: int) -> Gallery:
    """The images with the worst boundaries of all runs, the worst first.

    Args:
        runs: the runs.
        scorer: label and value of each score of an image.
        width: pictures are at most this wide, in pixels.
    """
    notes = [f"{run.label} has no pictures of its worst images (pictures/worst/)." for run in runs if not run.worst]
    ranks: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for number, run in enumerate(runs):
        names = [folder.name for folder in run.worst]
        for rank, name in enumerate(names):
            # Several cities may have frames of one name.
            ranks.setdefault((name, names[:rank].count(name)), []).append((number, rank))
    exhibits = []
    for (name, _), found in sorted(ranks.items(), key=lambda item: (min(rank for _, rank in item[1]), item[1])):
        places = dict(found)
        sources = [{0: runs[n].worst[places[n]]} if n in places else {} for n in range(len(runs))]
        missing = ["is not among the worst of this run" if run.worst else "has no such pictures" for run in runs]
        exhibits.append(_exhibit(name, runs, sources, missing, scorer, width, ranked=True))
    return _gallery("worst", exhibits, notes)


def _gallery(key: str, exhibits: list[Exhibit], notes: list[str]) -> Gallery:
    plates = [plate for e in exhibits for plate in [*e.shared, *(p for panel in e.panels for p in panel.plates)]]
    present = {plate.layer for plate in plates}
    epochs = sorted({plate.epoch for plate in plates if plate.epoch})
    return Gallery(key, exhibits, {k: name for k, name in LAYERS.items() if k in present}, epochs, notes)


def _spread(epochs: list[int], most: int) -> list[int]:
    """At most so many epochs, evenly spread, the last one among them."""
    if len(epochs) <= most:
        return epochs
    places = np.linspace(len(epochs) - 1, 0, most).round().astype(int) if most > 1 else [len(epochs) - 1]
    return [epochs[place] for place in sorted({int(place) for place in places})]


def _exhibit(
    name: str,
    runs: Sequence[Run],
    sources: Sequence[dict[int, PictureFolder]],
    missing: Sequence[str],
    scorer: Scorer,
    width: int,
    ranked: bool,
) -> Exhibit:
    named = (run.sample_name(f, ranked) for run, source in zip(runs, sources, strict=True) for f in source.values())
    sample = next((found for found in named if found), None)
    folders = [folder for source in sources for folder in source.values()]
    sizes = (_shown_size(folder.path, width) for folder in folders)
    size = next((found for found in sizes if found), (width, width // 2))
    shared = []
    for layer in _SHARED:
        encoded = (_encode(folder.path, layer, size) for folder in folders)
        if src := next((found for found in encoded if found), ""):
            shared.append(Plate(layer, src, f"{LAYERS[layer].capitalize()} of {name}"))
    panels = []
    for number, (run, source) in enumerate(zip(runs, sources, strict=True)):
        score = next((score for score in run.image_scores if score.name == sample), None)
        panel = Panel(number, scorer(score) if score else [])
        for epoch, folder in source.items():
            panel.plates += _own_plates(run, folder, epoch, source, size)
        panel.note = missing[number] if not source else _complaint(panel.plates)
        panels.append(panel)
    return Exhibit(sample or name, *size, shared, panels)


def _complaint(plates: Sequence[Plate]) -> str:
    present = {plate.layer for plate in plates}
    if "prediction" not in present:
        return "its prediction is missing or damaged"
    return "" if "boundary" in present else "has no boundary map and no gates: a network without shape stream"


def _own_plates(
    run: Run, folder: PictureFolder, epoch: int, source: dict[int, PictureFolder], size: tuple[int, int]
) -> list[Plate]:
    when = f", epoch {epoch}" if epoch else ""
    plates = []
    for layer in _OWN:
        limits = _gate_range(layer, [f.path for f in source.values()]) if layer in _GATES else None
        if src := _encode(folder.path, layer, size, limits):
            note = f"{limits[0] / 255:.2f} to {limits[1] / 255:.2f}" if limits else ""
            alt = f"{LAYERS[layer].capitalize()} of {folder.name} by {run.label}{when}"
            plates.append(Plate(layer, src, alt, note, epoch or None))
    return plates


def _gate_range(layer: str, folders: Iterable[Path]) -> tuple[float, float] | None:
    """Range of a gate through all epochs, so that they can be compared; 0 to 255."""
    maps = [gate for folder in folders if (gate := read_layer(folder, layer)) is not None]
    if not maps:
        return None
    low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
    # Nearly constant gates stay flat: without a least range their rounding noise would look like structure.
    return low, max(high, low + 13)


def _encode(folder: Path, layer: str, size: tuple[int, int], limits: tuple[float, float] | None = None) -> str:
    """A layer as data URI, or nothing where it is missing or damaged."""
    if layer == "photo":
        photo = read_layer(folder, layer)
        return "" if photo is None else _webp(_resized(photo, size, cv2.INTER_AREA), 82)
    if layer == "errors":
        labels, preds = read_labels(folder, "labels"), read_labels(folder, "prediction")
        if labels is None or preds is None or labels[0].shape != preds[0].shape:
            return ""
        small = [cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) for m in (labels[0], preds[0])]
        return _error_png(*small)
    if layer in ("labels", "prediction"):
        found = read_labels(folder, layer)
        return (
            "" if found is None else _palette_png(cv2.resize(found[0], size, interpolation=cv2.INTER_NEAREST), found[1])
        )
    values = read_layer(folder, layer)
    if values is None:
        return ""
    if layer in _GATES:
        low, high = limits or (0, 255)
        fitting = (min(size[0], values.shape[1]), min(size[1], values.shape[0]))
        return _webp(heat_map(_resized(values, fitting, cv2.INTER_AREA), low, high, "viridis"), 75)
    # Area averaging keeps thin boundaries visible, if dimmer, where nearest neighbour would break them up.
    shown = _resized(values, size, cv2.INTER_AREA)
    if layer == "boundary_truth":  # sharp lines on black: a few grey levels without loss take less than a photo's code
        return _palette_png((shown >> 4).astype(np.uint8), heat_map(np.arange(16)[None], 0, 15).flatten().tolist())
    return _webp(heat_map(shown, 0, 255), 70)


def _shown_size(folder: Path, width: int) -> tuple[int, int] | None:
    picture = read_layer(folder, "photo")
    if picture is None:
        return None
    share = min(1.0, width / picture.shape[1])
    return max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[0] * share))


def _resized(picture: Map, size: tuple[int, int], interpolation: int) -> Map:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return cv2.resize(picture, size, interpolation=interpolation).astype(np.uint8)


def _webp(picture: Map, quality: int) -> str:
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return _data_uri("webp", data.tobytes())


def _palette_png(values: Map, palette: Sequence[int], alpha: bytes | None = None) -> str:
    image = Image.fromarray(values, mode="P")
    image.putpalette(palette)
    file = io.BytesIO()
    image.save(file, "PNG", **({"transparency": alpha} if alpha else {}))
    return _data_uri("png", file.getvalue())


def _error_png(labels: Map, preds: Map) -> str:
    """What covers the photo: dark where the prediction is right, red where it is wrong, grey over void."""
    kind = np.where(labels == 255, 2, np.where(labels == preds, 0, 1)).astype(np.uint8)
    return _palette_png(kind, [8, 10, 14, 255, 64, 48, 128, 132, 140], bytes([178, 235, 205]))


def plot_uri(path: Path) -> str | None:
    """A plot of a run, a PNG file, as it is; None if there is none.

    Args:
        path: of the file.
    """
    data = path.read_bytes() if path.is_file() else b""
    return _data_uri("png", data) if data.startswith(b"\x89PNG") else None


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def percent(value: float | None) -> str:
    """A score in percent, with one decimal; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"
