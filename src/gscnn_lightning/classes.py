"""Class tables of the supported data sets: names, display colours and raw ids."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

IGNORE_INDEX = 255
"""Label of void pixels everywhere in this library."""


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of the classes of a data set, in the order of their train ids.

    Attributes:
        names: one name per class, train id 0 first.
        colors: one RGB colour (0 to 255) per class.

    Raises:
        ValueError: names are no texts, or colours no three numbers.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        _check_names("names", self.names)
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} class names but {len(self.colors)} colours: give one colour per class")
        for name, color in zip(self.names, self.colors, strict=True):
            parts = [] if isinstance(color, str) else list(color)
            if len(parts) != 3 or not all(isinstance(part, Integral) and 0 <= part <= 255 for part in parts):
                raise ValueError(f"the colour of class {name!r} is {color!r}: give (R, G, B), whole numbers 0 to 255")

    def __len__(self) -> int:
        return len(self.names)


def _check_names(what: str, names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ValueError(f"{what} is {names!r}: give one name per class, such as ('road', 'sky')")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"the name of class {index} is {name!r}: give text")


# Cordts et al., The Cityscapes Dataset, CVPR 2016: name, official id, train id (255 = not evaluated), colour.
_CITYSCAPES = (
    ("unlabeled", 0, 255, (0, 0, 0)),
    ("ego vehicle", 1, 255, (0, 0, 0)),
    ("rectification border", 2, 255, (0, 0, 0)),
    ("out of roi", 3, 255, (0, 0, 0)),
    ("static", 4, 255, (0, 0, 0)),
    ("dynamic", 5, 255, (111, 74, 0)),
    ("ground", 6, 255, (81, 0, 81)),
    ("road", 7, 0, (128, 64, 128)),
    ("sidewalk", 8, 1, (244, 35, 232)),
    ("parking", 9, 255, (250, 170, 160)),
    ("rail track", 10, 255, (230, 150, 140)),
    ("building", 11, 2, (70, 70, 70)),
    ("wall", 12, 3, (102, 102, 156)),
    ("fence", 13, 4, (190, 153, 153)),
    ("guard rail", 14, 255, (180, 165, 180)),
    ("bridge", 15, 255, (150, 100, 100)),
    ("tunnel", 16, 255, (150, 120, 90)),
    ("pole", 17, 5, (153, 153, 153)),
    ("polegroup", 18, 255, (153, 153, 153)),
    ("traffic light", 19, 6, (250, 170, 30)),
    ("traffic sign", 20, 7, (220, 220, 0)),
    ("vegetation", 21, 8, (107, 142, 35)),
    ("terrain", 22, 9, (152, 251, 152)),
    ("sky", 23, 10, (70, 130, 180)),
    ("person", 24, 11, (220, 20, 60)),
    ("rider", 25, 12, (255, 0, 0)),
    ("car", 26, 13, (0, 0, 142)),
    ("truck", 27, 14, (0, 0, 70)),
    ("bus", 28, 15, (0, 60, 100)),
    ("caravan", 29, 255, (0, 0, 90)),
    ("trailer", 30, 255, (0, 0, 110)),
    ("train", 31, 16, (0, 80, 100)),
    ("motorcycle", 32, 17, (0, 0, 230)),
    ("bicycle", 33, 18, (119, 11, 32)),
    ("license plate", -1, 255, (0, 0, 142)),
)
_EVALUATED = sorted((row for row in _CITYSCAPES if row[2] != IGNORE_INDEX), key=lambda row: row[2])

CITYSCAPES = ClassTable(tuple(row[0] for row in _EVALUATED), tuple(row[3] for row in _EVALUATED))
"""The 19 evaluated Cityscapes classes."""

CITYSCAPES_COLORS = {row[3]: row[2] for rows in (_CITYSCAPES, _EVALUATED) for row in rows}
"""Colours of all 35 labels to train ids; 255 is void. A colour of two labels is that of the evaluated one."""

CITYSCAPES_ID_TO_TRAIN_ID = {row[1]: row[2] for row in _CITYSCAPES}
"""All 35 official ids to train ids; 255 is void."""

CITYSCAPES_TRAIN_ID_TO_ID = {row[2]: row[1] for row in _EVALUATED}
"""Train ids 0 to 18 to official ids, as the evaluation server expects them."""

CAMVID = ClassTable(
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
"""The 11 classes of CamVid in the SegNet layout; raw value 11 is void."""


def colors_of(class_names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """Display colours of classes: those of Cityscapes or CamVid where the names are theirs, else well separated hues.

    Args:
        class_names: K names.

    Returns:
        K RGB colours, 0 to 255.

    Raises:
        ValueError: a name is no text.
    """
    _check_names("class_names", class_names)
    for table in (CITYSCAPES, CAMVID):
        if tuple(class_names) == table.names:
            return table.colors
    # Steps of the golden ratio keep any number of hues apart; three levels of brightness separate neighbours further.
    hsv = [((index * 0.618034) % 1, 0.78, 1 - 0.235 * (index % 3)) for index in range(len(class_names))]
    rgb = [colorsys.hsv_to_rgb(*color) for color in hsv]
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in rgb)
