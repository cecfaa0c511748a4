"""Where the frames of a split come from: what every source can do, and what some can do better."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.windows import FrameWindows

if TYPE_CHECKING:
    from gscnn_lightning.data.class_tiles import ClassTiles

Bytes = npt.NDArray[np.uint8]


class Source(ABC):
    """The frames of one split.

    A source of one's own defines `__len__`, `load` and `name`. The other methods say that a source can do no more than
    that; `files.FileSource` overrides those that are about files.

    Attributes:
        problems: what is wrong with the data beside the frames, one message each, such as files without a partner.
        remarks: what was left out beside the frames, one message each.
        notes: all that is converted or left out, one message each; known after `check`.
    """

    problems: Sequence[str] = ()
    remarks: Sequence[str] = ()
    notes: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) with 255 for void, or None if unlabelled; both uint8.

        Always the same for an index: what is drawn at random belongs into the transform, as frames may be kept.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Unique relative name without suffix; may contain slashes."""

    def identity(self, index: int) -> str:
        """What tells a frame from those of other splits; by default its name."""
        return self.name(index)

    def check(self) -> None:  # noqa: B027 - doing nothing is meant
        """Report what can be known without decoding; nothing by default.

        Raises:
            DataError: the data cannot be used.
        """

    def check_frame(self, index: int) -> Sequence[str]:
        """Report what can be known of one frame without decoding; nothing by default.

        Returns:
            What is converted or left out when the frame is read, such as "read without transparency".

        Raises:
            DataError: the frame cannot be used.
        """
        return ()

    def load_labels(self, index: int) -> Bytes | None:
        """Train ids (H, W) uint8 alone, 255 for void, or None of an unlabelled frame."""
        return self.load(index)[1]

    def load_instances(self, index: int) -> npt.NDArray[np.int32] | None:
        """Instance map (H, W) as the data set encodes it; None without, as by default."""
        return None

    def open_windows(self, index: int) -> FrameWindows | None:
        """A frame of which parts can be read without decoding all of it; None where that is not so, as by default.

        Parts are to the bit those of what `load` gives.
        """
        return None

    def fingerprint(self) -> str | None:
        """Digest that changes with the labels, under which an index of them is kept; None if there is to be none."""
        return None

    def image_file(self, index: int) -> Path | None:
        """File that `load` decodes the image of, by `pictures.read_picture` and nothing else; None if there is none."""
        return None

    def class_tiles(self) -> "ClassTiles | None":
        """Index of the classes' places where it is known already; None if it has to be built, as by default."""
        return None
