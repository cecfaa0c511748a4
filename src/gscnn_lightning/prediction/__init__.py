"""From an image file to the files of its prediction."""

from typing import Literal

Format = Literal["labels", "ids", "color", "overlay", "boundary", "gates", "confidence", "entropy"]
DEFAULT_FORMATS: tuple[Format, ...] = ("labels", "color", "overlay", "boundary")
"""What is written of an image; `prediction.files.PredictionFiles` says what each is."""
