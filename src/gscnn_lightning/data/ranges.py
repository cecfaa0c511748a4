"""Ranges of the numbers that data modules and their augmentation take, known before anything slow is imported."""

from gscnn_lightning.checks import are_numbers, is_number, is_whole
from gscnn_lightning.errors import SettingError


def check_count(name: str, value: object, least: int) -> None:
    """Raise unless something is a whole number, not below the least.

    Raises:
        SettingError: it is not.
    """
    if not is_whole(value, least):
        whole = "" if is_whole(value) else "a whole number of "
        raise SettingError(f"{name} must be {whole}{least} or more, got {value!r}")


def check_augmentation(
    crop_size: tuple[int, int] | None,
    scale: tuple[float, float],
    class_uniform: float,
    flip: float,
    color_jitter: float,
    blur: float,
) -> None:
    """Raise unless these numbers, see `transforms.training_transform`, are in range.

    Raises:
        SettingError: one is not; the message says which.
    """
    for name, probability in (("class_uniform", class_uniform), ("flip", flip), ("blur", blur)):
        if not is_number(probability, 0) or probability > 1:
            raise SettingError(f"{name} is a probability between 0 and 1, got {probability!r}")
    if not is_number(color_jitter, 0) or color_jitter >= 1:
        raise SettingError(f"color_jitter must be at least 0 and below 1, got {color_jitter!r}")
    check_crop(crop_size, scale)


def check_crop(size: tuple[int, int] | None, scale: tuple[float, float]) -> None:
    """Raise unless crops can have a size, if there are any, and a range of scales.

    Raises:
        SettingError: they cannot.
    """
    if size is not None and (not are_numbers(size, lambda side: is_whole(side, 1)) or len(size) != 2):
        raise SettingError(f"crop size must be a height and a width of 1 or more, got {size!r}")
    if not are_numbers(scale, lambda factor: factor > 0) or len(scale) != 2 or scale[0] > scale[1]:
        raise SettingError(f"scale must be a range of positive factors such as (0.5, 2.0), got {scale!r}")
