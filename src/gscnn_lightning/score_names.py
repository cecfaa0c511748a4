"""What scores are called: in logs, files and sweeps (public), and as titles and headings.

Names are put together and taken apart here only.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from gscnn_lightning.errors import SettingError

MIOU = "miou"
"""Mean IoU, the score that chooses the best checkpoint."""

IOU = "iou"
BOUNDARY_IOU = "boundary_iou"
BOUNDARY_ODS = "boundary_ods"
IIOU = "iiou"
ECE, ECE_BOUNDARY = "ece", "ece_boundary"

_SCORES = {
    MIOU: ("mean IoU", "mIoU"),
    "accuracy": ("pixel accuracy", "accuracy"),
    "mean_accuracy": ("class accuracy", "accuracy"),
    "fwiou": ("frequency-weighted IoU", "fwIoU"),
    "category_miou": ("category IoU", "IoU"),
    IIOU: ("mean iIoU", "iIoU"),
    "category_miiou": ("category iIoU", "iIoU"),
    BOUNDARY_IOU: ("Boundary IoU", "BIoU"),
    BOUNDARY_ODS: ("boundary map, best F", "ODS"),
    ECE: ("calibration error (ECE)", "ECE"),
    ECE_BOUNDARY: ("ECE within 3 px of boundaries", "ECE 3 px"),
}
"""Every score but the boundary F-scores, by name: its title as a mean, its heading as a column."""

MEAN_NAMES = {name: title for name, (title, _) in _SCORES.items()}
"""Names of mean scores as titles."""

_HEADINGS = {IOU: "IoU", **{name: heading for name, (_, heading) in _SCORES.items()}}

_LOSSES = {
    "loss": "total loss",
    "loss_boundary": "boundary loss",
    "loss_segmentation": "segmentation loss",
    "loss_regularizer": "dual task regularizer",
    "loss_attention": "loss at confident boundaries",
}
_BOUNDARY_F = "boundary_f1_"
_OF_CLASS, _OF_CROP = "iou_", "miou_crop_"
_DIAGONAL = 2290  # of a frame of 1024x2048, in pixels


def boundary_score(tolerance: float) -> str:
    """Name of the boundary F-score at a tolerance.

    Args:
        tolerance: in pixels, or a fraction of the diagonal below 1.

    Example:
        >>> boundary_score(3), boundary_score(0.01)
        ('boundary_f1_3px', 'boundary_f1_0.01diag')
    """
    return f"{_BOUNDARY_F}{tolerance:g}{'px' if tolerance >= 1 else 'diag'}"


def is_boundary_score(name: str) -> bool:
    """Whether a name is that of a boundary F-score."""
    return name.startswith(_BOUNDARY_F)


def tolerance_text(name: str) -> str:
    """Tolerance of a boundary F-score as in its name, without "px".

    Example:
        >>> tolerance_text("boundary_f1_3px"), tolerance_text("boundary_f1_0.01diag")
        ('3', '0.01diag')
    """
    return name.removeprefix(_BOUNDARY_F).removesuffix("px")


def tolerance_pixels(name: str) -> float:
    """Tolerance of a boundary F-score in pixels; a fraction of the diagonal counts as that of a frame of 1024x2048.

    Example:
        >>> tolerance_pixels("boundary_f1_3px"), tolerance_pixels("boundary_f1_0.01diag")
        (3.0, 22.9)
    """
    value, unit = re.fullmatch(r"([\d.e+-]+)(px|diag)", name.removeprefix(_BOUNDARY_F)).groups()  # type: ignore[union-attr]
    return float(value) if unit == "px" else round(float(value) * _DIAGONAL, 6)


def loosest_boundary_score(names: Iterable[str]) -> str | None:
    """The boundary F at the largest tolerance; None if there is none.

    Example:
        >>> loosest_boundary_score(["miou", "boundary_f1_12px", "boundary_f1_3px"])
        'boundary_f1_12px'
    """
    return max(filter(is_boundary_score, names), key=tolerance_pixels, default=None)


def mean_name(name: str) -> str:
    """Name of the mean over classes of a score per class: the same, but for the IoU.

    Example:
        >>> mean_name("iou"), mean_name("boundary_f1_3px")
        ('miou', 'boundary_f1_3px')
    """
    return MIOU if name == IOU else name


def class_iou_name(class_name: str) -> str:
    """Logged name of the IoU of a class.

    Example:
        >>> class_iou_name("traffic light")
        'iou_traffic_light'
    """
    return _OF_CLASS + class_name.replace(" ", "_")


def class_of_iou(name: str) -> str | None:
    """Class whose IoU was logged under a name, with spaces; None for another score.

    Example:
        >>> class_of_iou("iou_traffic_light"), class_of_iou("miou")
        ('traffic light', None)
    """
    return name.removeprefix(_OF_CLASS).replace("_", " ") if name.startswith(_OF_CLASS) else None


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise unless every class can be told from the others in logs and tables.

    Args:
        class_names: K names.

    Raises:
        SettingError: a name is empty, has line breaks or other control characters, or begins as formulas of
            spreadsheets do; or two classes have one name, or one name in logs.

    Example:
        >>> check_class_names(["traffic light", "[road]"])
    """
    logged: dict[str, str] = {}
    for name in class_names:
        if not name.strip() or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
            raise SettingError(f"class name {name!r} is empty or has control characters: write a name in one line")
        if name[0] in "=+-@":
            raise SettingError(f"class name {name!r} is a formula for spreadsheets: begin it with something else")
        other = logged.setdefault(class_iou_name(name), name)
        if other != name:
            raise SettingError(
                f"classes {other!r} and {name!r} have one name in logs, {class_iou_name(name)}: rename one of them"
            )
    if len(set(class_names)) < len(class_names):
        raise SettingError(f"class {max(class_names, key=list(class_names).count)!r} is there twice: name it once")


def crop_name(factor: str) -> str:
    """Logged name of the mean IoU at a crop factor of the distance-based evaluation.

    Example:
        >>> crop_name("400")
        'miou_crop_400'
    """
    return _OF_CROP + factor


def is_share(name: str) -> bool:
    """Whether a logged quantity is a score in [0, 1], to be shown in percent.

    Example:
        >>> is_share("boundary_f1_3px"), is_share("iou_road"), is_share("loss_boundary")
        (True, True, False)
    """
    known = name in _SCORES or is_boundary_score(name)
    return known or class_of_iou(name) is not None or name.startswith(_OF_CROP)


def is_lower_better(name: str) -> bool:
    """Whether less of a logged quantity is better: losses and calibration errors.

    Example:
        >>> is_lower_better("ece"), is_lower_better("loss_boundary"), is_lower_better("miou")
        (True, True, False)
    """
    return name in (ECE, ECE_BOUNDARY) or is_loss(name)


def is_loss(name: str) -> bool:
    """Whether a logged quantity is the loss or one of its terms."""
    return name == "loss" or name.startswith("loss_")


def loss_title(name: str) -> str:
    """Name of a loss term as a title.

    Example:
        >>> loss_title("loss"), loss_title("loss_regularizer"), loss_title("loss_of_mine")
        ('total loss', 'dual task regularizer', 'of mine loss')
    """
    return _LOSSES.get(name) or f"{name.removeprefix('loss_').replace('_', ' ')} loss"


def loss_order(name: str) -> tuple[int, str]:
    """Sorting key: the total first, then its terms as in the paper, then others by name."""
    known = list(_LOSSES)
    return known.index(name) if name in known else len(known), name


def main_scores(names: Iterable[str]) -> list[str]:
    """Mean IoU and boundary F-scores among names, in their order: what there is room for everywhere.

    Example:
        >>> main_scores(["accuracy", "miou", "boundary_f1_3px", "boundary_iou"])
        ['miou', 'boundary_f1_3px']
    """
    return [name for name in names if name == MIOU or is_boundary_score(name)]


def score_order(name: str) -> tuple[int, float, str]:
    """Sorting key: the mean IoU first, then boundary F by tolerance, then the others by name."""
    if name == MIOU:
        return 0, 0.0, name
    return (1, tolerance_pixels(name), name) if is_boundary_score(name) else (2, 0.0, name)


def score_headings(columns: Sequence[str]) -> list[str]:
    """Names of scores as short headings.

    Example:
        >>> score_headings(["iou", "boundary_f1_3px", "boundary_f1_0.01diag", "boundary_iou", "iiou", "miou"])
        ['IoU', 'F 3 px', 'F 0.01diag', 'BIoU', 'iIoU', 'mIoU']
    """
    return [_HEADINGS.get(name, name.replace(_BOUNDARY_F, "F ").replace("px", " px")) for name in columns]


def score_title(name: str) -> str:
    """Name of a score as a title; names that are not known stay as they are.

    Example:
        >>> score_title("miou"), score_title("boundary_f1_3px"), score_title("other")
        ('mean IoU', 'boundary F, 3 px', 'other')
    """
    if is_boundary_score(name):
        return score_headings([name])[0].replace("F ", "boundary F, ")
    return MEAN_NAMES.get(name, name)
