"""Pictures as files that are complete or not there."""

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.errors import DataError

# Photographs have no runs of equal bytes to look for; maps have little else, which OpenCV's own choice suits.
_PHOTO = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY)


def write_picture(path: Path, picture: npt.NDArray[np.uint8], overwrite: bool = False, photo: bool = False) -> None:
    """Write an image file, all of it or nothing; the suffix decides the format.

    Args:
        path: file to write; its folder is made.
        picture: (H, W) or (H, W, 3) RGB, uint8.
        overwrite: replace a file that exists.
        photo: the picture is more of a photograph than of a map; the same pixels as PNG in less time.

    Raises:
        DataError: the file exists and is not to be overwritten, or cannot be written.
    """
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
    parameters = _PHOTO if photo and path.suffix == ".png" else ()
    encoded = cv2.imencode(path.suffix, picture, parameters)[1].data
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(encoded)
        try:
            if overwrite:
                part.replace(path)
            else:
                _link(part, path)
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError as error:
        raise DataError(
            f"{path} exists already and is not overwritten: remove it or choose another output_dir; "
            "if this run wrote it, two images have the same name"
        ) from error
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def _link(part: Path, path: Path) -> None:
    """Give a complete file its name: of two processes that write images of one name, only one can succeed."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        part.replace(path)
