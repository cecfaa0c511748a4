"""Drawing surface of the generated street scenes: random numbers, camera, light, canvas and local frames.

Everything is measured in metres (x right, y up, z forward from the camera) and projected by one pinhole camera.
Colour and label share one four-channel canvas, so that a single OpenCV call draws both with the very same geometry.
The canvas is twice as large as the picture: the colours are averaged, the labels sampled.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np

from gscnn_lightning.classes import CITYSCAPES, IGNORE_INDEX

SUPERSAMPLE = 2
"""Canvas pixels per picture pixel along each axis."""

VOID = IGNORE_INDEX
LABEL = {name: train_id for train_id, name in enumerate(CITYSCAPES.names)}
"""Train id by class name."""

Color = tuple[int, int, int]
Points = Sequence[tuple[float, float]] | np.ndarray
T = TypeVar("T")

_FRACTION_BITS = 3
_COORDINATE_LIMIT = 20_000.0 * (1 << _FRACTION_BITS)  # keeps far off-screen vertices inside OpenCV's fixed-point range
_NEAR = 0.4  # metres; nothing is projected from closer than this
_ANGLES = np.arange(16) * (2 * math.pi / 16)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""Unit circle, (16, 2)."""
_RISING = np.linspace(0.0, 1.0, 128)[:, None]
_FALLING = 1.0 - _RISING


class Dice:
    """Uniform random numbers drawn in blocks, because single NumPy draws are slow.

    Args:
        key: entropy of the generator, for example ``[seed, index]``.
    """

    def __init__(self, key: Sequence[int]) -> None:
        self._rng = np.random.default_rng(list(key))
        self._block: list[float] = []

    def random(self) -> float:
        """Draw from [0, 1)."""
        if not self._block:
            self._block = self._rng.random(512).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def integer(self, low: int, high: int) -> int:
        """Draw an integer from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[int(self.random() * len(options))]

    def weighted(self, weights: dict[str, float]) -> str:
        """Draw a key with probability proportional to its weight."""
        left = self.random() * sum(weights.values())
        for name, weight in weights.items():
            left -= weight
            if left < 0:
                return name
        return name

    def sign(self) -> int:
        """Draw -1 or 1."""
        return 1 if self.random() < 0.5 else -1

    def tone(self, color: Color, spread: float = 18) -> Color:
        """Vary a colour in brightness and a little in hue; ``spread`` is in grey levels."""
        common = self.uniform(-spread, spread)
        red, green, blue = (
            min(255, max(0, int(value + common + self.uniform(-spread, spread) * 0.35))) for value in color
        )
        return red, green, blue


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two colours; ``share`` in [0, 1] is that of the second."""
    keep = 1.0 - share
    return (
        int(first[0] * keep + second[0] * share),
        int(first[1] * keep + second[1] * share),
        int(first[2] * keep + second[2] * share),
    )


def scale(color: Color, gain: float) -> Color:
    """Brighten (gain > 1) or darken (gain < 1) a colour."""
    return min(255, int(color[0] * gain)), min(255, int(color[1] * gain)), min(255, int(color[2] * gain))


@dataclass(frozen=True)
class Camera:
    """Level pinhole camera above a flat ground.

    Attributes:
        height: metres above the ground.
        focal: focal length in canvas pixels.
        center_x: column of the vanishing point, canvas pixels.
        horizon: row of the horizon, canvas pixels.
    """

    height: float
    focal: float
    center_x: float
    horizon: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project (..., 3) points in metres to (..., 2) canvas coordinates."""
        return self.project_parts(points[..., 0], points[..., 1], points[..., 2])

    def project_parts(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Project points given by separate coordinates of one shape (...,) to (..., 2) canvas coordinates."""
        ratio = self.focal / np.maximum(z, _NEAR)
        pixels = np.empty((*ratio.shape, 2))
        pixels[..., 0] = self.center_x + x * ratio
        pixels[..., 1] = self.horizon + (self.height - y) * ratio
        return pixels

    def point(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Project a single point."""
        ratio = self.focal / max(z, _NEAR)
        return self.center_x + x * ratio, self.horizon + (self.height - y) * ratio


@dataclass(frozen=True)
class Light:
    """Illumination of a scene.

    Attributes:
        kind: name of the weather or time of day.
        gains: final red, green and blue gain.
        sun: strength of cast shadows in [0, 1].
        direction: ground vector (x, z) along which one metre of height casts its shadow.
        haze: colour that distance fades to.
        visibility: metres after which about two thirds of a colour are lost in haze.
        lamps: whether windows and lamps are lit.
        sky: colours of zenith and horizon.
        clouds: cloud cover in [0, 1].
    """

    kind: str
    gains: tuple[float, float, float]
    sun: float
    direction: tuple[float, float]
    haze: Color
    visibility: float
    lamps: bool
    sky: tuple[Color, Color]
    clouds: float

    def veil(self, distance: float) -> float:
        """Share of haze in a colour seen from ``distance`` metres."""
        return 1.0 - math.exp(-distance / self.visibility)

    def fade(self, color: Color, distance: float) -> Color:
        """Aerial perspective of a colour seen from ``distance`` metres."""
        return mix(color, self.haze, self.veil(distance))


class Canvas:
    """Four-channel picture: red, green, blue and train id.

    Args:
        height: rows of the canvas.
        width: columns of the canvas.
    """

    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.zeros((height, width, 4), np.uint8)
        self.words = self.pixels.view(np.uint32)[..., 0]
        self.height, self.width = height, width

    def polygon(self, points: np.ndarray, color: Color, label: int) -> None:
        """Fill one polygon, (N, 2) canvas coordinates."""
        cv2.fillPoly(self.pixels, [_fixed_point(points)], (*color, label), cv2.LINE_8, _FRACTION_BITS)

    def line(self, points: np.ndarray, width: float, color: Color, label: int, closed: bool = False) -> None:
        """Draw a polyline that is at least one picture pixel wide."""
        self.lines(points[None], width, color, label, closed)

    def lines(self, lines: np.ndarray, width: float, color: Color, label: int, closed: bool = False) -> None:
        """Draw polylines of canvas coordinates, (M, N, 2), all of one width."""
        thickness = max(SUPERSAMPLE, round(width))
        points = list(_fixed_point(lines))
        cv2.polylines(self.pixels, points, closed, (*color, label), thickness, cv2.LINE_8, _FRACTION_BITS)

    def fill_rows(self, top: int, color: Color, label: int) -> None:
        """Fill everything from row ``top`` down."""
        self.words[top:] = np.array((*color, label), np.uint8).view(np.uint32)[0]

    def stamp(self, sprite: np.ndarray, box: tuple[float, float, float, float], palette: np.ndarray) -> None:
        """Paste a sprite.

        Args:
            sprite: (h, w) intp; 0 is transparent, 1 to 127 index the palette.
            box: left, top, right, bottom in canvas coordinates.
            palette: (128,) uint32 words made by :func:`make_palette`.
        """
        left, top, right, bottom = (round(value) for value in box)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, self.width), min(bottom, self.height)
        if x1 <= x0 or y1 <= y0:
            return
        rows = np.arange(y0 - top, y1 - top) * sprite.shape[0] // (bottom - top)
        columns = np.arange(x0 - left, x1 - left) * sprite.shape[1] // (right - left)
        shades = sprite.take(rows, axis=0).take(columns, axis=1)
        np.copyto(self.words[y0:y1, x0:x1], palette.take(shades), where=shades > 0)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    fixed = points * (1 << _FRACTION_BITS)
    np.maximum(fixed, -_COORDINATE_LIMIT, out=fixed)
    np.minimum(fixed, _COORDINATE_LIMIT, out=fixed)
    return fixed.astype(np.int32)


class Strokes:
    """Polygons and polylines of one object, collected in local coordinates and projected together.

    Small arrays cost NumPy as much as large ones, so that one projection per object is several times faster.

    Args:
        canvas: what is drawn on.
        project: maps (K, D) local coordinates to (K, 2) canvas coordinates.
    """

    def __init__(self, canvas: Canvas, project: Callable[[np.ndarray], np.ndarray]) -> None:
        self._canvas, self._project = canvas, project
        self._shapes: list[np.ndarray] = []
        self._styles: list[tuple[tuple[int, int, int, int], int, bool]] = []

    def add(self, shapes: np.ndarray, color: Color, label: int, width: int = 0, closed: bool = False) -> None:
        """Collect shapes (M, N, D): disjoint polygons, or polylines if ``width`` (canvas pixels) is given."""
        self._shapes.append(shapes)
        self._styles.append(((*color, label), width, closed))

    def draw(self) -> None:
        """Draw everything in the order in which it was added."""
        if not self._shapes:
            return
        dimensions = self._shapes[0].shape[-1]
        flat = np.concatenate([shapes.reshape(-1, dimensions) for shapes in self._shapes])
        fixed, pixels, start = _fixed_point(self._project(flat)), self._canvas.pixels, 0
        for shapes, (color, width, closed) in zip(self._shapes, self._styles, strict=True):
            count, size = shapes.shape[:2]
            points = list(fixed[start : start + count * size].reshape(count, size, 2))
            start += count * size
            if width:
                cv2.polylines(pixels, points, closed, color, max(width, SUPERSAMPLE), cv2.LINE_8, _FRACTION_BITS)
            else:
                cv2.fillPoly(pixels, points, color, cv2.LINE_8, _FRACTION_BITS)


def make_palette(dark: Color, bright: Color, label: int) -> np.ndarray:
    """Build a ramp from ``dark`` to ``bright`` as 128 canvas words (colour and label in one uint32)."""
    words = np.empty((128, 4), np.uint8)
    words[:, :3] = _FALLING * dark + _RISING * bright
    words[:, 3] = label
    return words.view(np.uint32)[:, 0]


@dataclass(frozen=True)
class Street:
    """Course and cross-section of the street; ``s`` is the lateral position relative to its axis.

    Attributes:
        axis: lateral position of the axis at the camera, metres.
        curvature: bend of the axis, 1 / metres.
        left: s of the left kerb (negative).
        right: s of the right kerb.
    """

    axis: float
    curvature: float
    left: float
    right: float

    def x(self, s: float, z: float) -> float:
        """Lateral position in camera coordinates of street position (s, z)."""
        return self.axis + s + self.curvature * z * z / (1.0 + z / 60.0)

    def xs(self, s: float | np.ndarray, z: np.ndarray) -> np.ndarray:
        """Vectorised :meth:`x`."""
        return self.axis + s + self.curvature * z * z / (1.0 + z / 60.0)

    def heading(self, z: float) -> float:
        """Angle of the axis against the viewing direction at depth z, radians."""
        return math.atan(self.curvature * z * (2.0 + z / 60.0) / (1.0 + z / 60.0) ** 2)

    def kerb(self, side: int) -> float:
        """Position s of the kerb on ``side`` (-1 left, 1 right)."""
        return self.left if side < 0 else self.right


@dataclass
class Item:
    """Something to be painted.

    Attributes:
        near: depth of its closest part; items are painted from far to near.
        far: depth of its farthest part.
        x: lateral position of the side that faces the camera.
        paint: draws it.
    """

    near: float
    far: float
    x: float
    paint: Callable[[], None]


@dataclass
class Scene:
    """All that the drawing functions need.

    Attributes:
        dice: source of randomness.
        camera: the pinhole camera.
        canvas: what is drawn on.
        light: illumination.
        street: course of the street.
        shadows: (H, W) uint8 of the picture, depth of cast shadow on the ground.
        items: what is to be painted, in any order.
        taken: bounding boxes (x0, z0, x1, z1) of the ground on which something stands already.
    """

    dice: Dice
    camera: Camera
    canvas: Canvas
    light: Light
    street: Street
    shadows: np.ndarray
    items: list[Item] = field(default_factory=list)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def add(self, near: float, far: float, x: float, paint: Callable[[], None]) -> None:
        """Put something on the list of things to paint."""
        self.items.append(Item(near, far, x, paint))

    def claim(self, footprint: np.ndarray) -> bool:
        """Reserve the ground under corners (N, 2); False, and nothing reserved, if something stands there already."""
        (x0, z0), (x1, z1) = footprint.min(axis=0).tolist(), footprint.max(axis=0).tolist()
        if any(x0 < x3 and x2 < x1 and z0 < z3 and z2 < z1 for x2, z2, x3, z3 in self.taken):
            return False
        self.taken.append((x0, z0, x1, z1))
        return True

    def sees(self, x: float, z: float, margin: float) -> bool:
        """Whether anything within ``margin`` metres of (x, z) falls between the left and right edge of the picture."""
        unit = self.camera.focal / max(z, 1.0)
        column = self.camera.center_x + x * unit
        return -margin * unit < column < self.canvas.width + margin * unit

    def quad(self, corners: Sequence[tuple[float, float, float]], color: Color, label: int) -> None:
        """Fill a planar polygon given by its corners in metres."""
        points = np.asarray(corners, float)
        shade = self.light.fade(color, float(points[:, 2].mean()))
        self.canvas.polygon(self.camera.project(points), shade, label)

    def shade_ground(self, footprint: np.ndarray, height: float, contact: bool = True) -> None:
        """Cast the shadow of an upright prism.

        Args:
            footprint: (N, 2) ground corners (x, z) in metres.
            height: height of the prism in metres.
            contact: also darken the ground right under it.
        """
        if contact:
            self._darken(footprint, 105)
        if self.light.sun > 0:
            offset = footprint + np.asarray(self.light.direction) * height
            hull = cv2.convexHull(np.concatenate([footprint, offset]).astype(np.float32))[:, 0]
            self._darken(hull, int(150 * self.light.sun))

    def _darken(self, ground: np.ndarray, depth: int) -> None:
        points = np.stack([ground[:, 0], np.zeros(len(ground)), np.maximum(ground[:, 1], 1.0)], axis=1)
        pixels = self.camera.project(points) / SUPERSAMPLE
        cv2.fillConvexPoly(self.shadows, _fixed_point(pixels), depth, cv2.LINE_8, _FRACTION_BITS)


class Frame:
    """Upright plane standing on the ground, with local coordinates in metres.

    Weak perspective: within the plane the map to the canvas is affine, which suits everything but vehicles and houses.

    Args:
        scene: where to draw.
        x: lateral position of the origin.
        z: depth of the origin.
        yaw: turn of the plane about the vertical, radians; 0 faces the camera.
        size: scale of everything drawn in it.
        mirror: 1, or -1 to look the other way.
    """

    def __init__(self, scene: Scene, x: float, z: float, yaw: float = 0.0, size: float = 1.0, mirror: int = 1) -> None:
        camera = scene.camera
        self.strokes = Strokes(scene.canvas, self._pixels)
        self.unit = camera.focal / z * size
        u, v = camera.point(x, 0.0, z)
        # Derivative of the projection along the plane's horizontal direction (cos yaw, sin yaw).
        du = (math.cos(yaw) - (u - camera.center_x) / camera.focal * math.sin(yaw)) * self.unit * mirror
        dv = -(v - camera.horizon) / camera.focal * math.sin(yaw) * self.unit * mirror
        self.origin = np.array([u, v])
        self.matrix = np.array([[du, dv], [0.0, -self.unit]])
        self.z, self._haze, self._veil = z, scene.light.haze, scene.light.veil(z)

    def fade(self, color: Color) -> Color:
        """Aerial perspective of a colour at the depth of the frame."""
        return mix(color, self._haze, self._veil)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        return points @ self.matrix + self.origin

    def draw(self) -> None:
        """Put everything on the canvas."""
        self.strokes.draw()

    def polygon(self, points: Points, color: Color, label: int) -> None:
        """Fill a polygon."""
        self.strokes.add(np.array([points], float), self.fade(color), label)

    def box(self, left: float, bottom: float, right: float, top: float, color: Color, label: int) -> None:
        """Fill a rectangle."""
        self.polygon(((left, bottom), (right, bottom), (right, top), (left, top)), color, label)

    def bar(self, points: Points, width: float, color: Color, label: int) -> None:
        """Draw a polyline of the given width in metres."""
        self.bars(np.array([points], float), width, color, label)

    def bars(self, lines: np.ndarray, width: float, color: Color, label: int, closed: bool = False) -> None:
        """Draw polylines (M, N, 2), at least one picture pixel wide."""
        thickness = max(SUPERSAMPLE, round(width * self.unit))
        self.strokes.add(lines, self.fade(color), label, thickness, closed)

    def disc(self, x: float, y: float, radius: float, color: Color, label: int, flat: float = 1.0) -> None:
        """Fill a circle, or an ellipse that is ``flat`` times as high as wide."""
        self.polygon(CIRCLE * (radius, radius * flat) + (x, y), color, label)

    def ring(self, x: float, y: float, radius: float, width: float, color: Color, label: int) -> None:
        """Draw a circle line."""
        self.bars((CIRCLE * radius + (x, y))[None], width, color, label, closed=True)
