"""Predictions as the Cityscapes evaluation server and script expect them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gscnn_lightning.data.cityscapes import PACKAGES
from gscnn_lightning.data.files import data_root, find_files
from gscnn_lightning.errors import DataError
from gscnn_lightning.prediction.inputs import Input

CITIES = {
    "train": {
        "aachen": 174,
        "bochum": 96,
        "bremen": 316,
        "cologne": 154,
        "darmstadt": 85,
        "dusseldorf": 221,
        "erfurt": 109,
        "hamburg": 248,
        "hanover": 196,
        "jena": 119,
        "krefeld": 99,
        "monchengladbach": 94,
        "strasbourg": 365,
        "stuttgart": 196,
        "tubingen": 144,
        "ulm": 95,
        "weimar": 142,
        "zurich": 122,
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
    "test": {"berlin": 544, "bielefeld": 181, "bonn": 46, "leverkusen": 58, "mainz": 298, "munich": 398},
}
"""Number of frames of each city in the official splits: 2975, 500 and 1525."""


def submission_inputs(inputs: Sequence[str], split: str) -> list[Input]:
    """Frames of a split, under the names of their predictions: ``<city>_<sequence>_<frame>``, without folders.

    Args:
        inputs: folder of Cityscapes, or nothing for the environment variable CITYSCAPES_DATASET.
        split: "train", "val" or "test".

    Raises:
        DataError: the folder or its images are missing.
    """
    root = data_root(inputs[0] if inputs else None, "CITYSCAPES_DATASET", "Cityscapes")
    places = PACKAGES["leftImg8bit"]
    for place in places:
        images = find_files(root / place / split, ending="_leftImg8bit")
        if images:
            return [Input(path, name.rpartition("/")[2]) for name, path in images.items()]
    raise DataError(f"no images in {root / places[0] / split}: unpack leftImg8bit_trainvaltest.zip in {root}")


def check_submission(out: Path, split: str, inputs: Sequence[Input]) -> list[str]:
    """What keeps the files of a folder from being a complete submission, one message each.

    The script takes any PNG below the folder whose name begins with that of the frame, and stops at a second one.

    Args:
        out: folder with the predictions.
        split: "train", "val" or "test".
        inputs: the frames that were predicted.
    """
    frames = Counter("_".join(path.name.split("_")[:3]) for path in out.rglob("*.png"))
    twice = {frame: count for frame, count in frames.items() if count > 1}
    complaints = [f"{count} files for frame {frame}: remove all but one" for frame, count in twice.items()]
    expected = {item.name for item in inputs}
    strange = sorted(set(frames) - expected)
    if strange:
        complaints.append(f"{len(strange)} files are not of the {split} split, the first is {strange[0]}: remove them")
    cities = Counter(frame.split("_")[0] for frame in frames)
    for city, number in CITIES[split].items():
        if cities[city] < number:
            complaints.append(f"{number - cities[city]} of {number} frames of {city} are missing")
    return complaints
