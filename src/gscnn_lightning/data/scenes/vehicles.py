"""Vehicles of the street scenes: solids extruded from side profiles, projected in true perspective.

Local coordinates in metres: l forward along the vehicle, w to its right, y up; the origin is on the ground in the
middle of the vehicle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gscnn_lightning.data.scenes.canvas import CIRCLE, LABEL, Color, Dice, Scene, Strokes, mix, scale

PAINTS: tuple[Color, ...] = (
    (30, 32, 36), (70, 74, 80), (150, 155, 160), (215, 217, 220), (235, 235, 232), (125, 25, 30), (30, 55, 110),
    (60, 90, 130), (40, 80, 60), (150, 130, 95), (190, 60, 30), (220, 180, 40),
)  # fmt: skip
DETAIL_DEPTH = 35.0
"""Metres beyond which details that would not be seen are left out."""
_GLASS: Color = (38, 46, 54)
_RUBBER: Color = (24, 24, 26)
_CORNERS = [0, 1, 2, 1, 2, 3, 0, 3]  # (a0, b0, a1, b1) to the four corners of a rectangle
_HEADLIGHT: Color = (250, 248, 225)
_TAIL_LIGHT: Color = (205, 25, 25)


class Pose:
    """Place and heading of a vehicle.

    Args:
        scene: where to draw.
        x: lateral position of the middle.
        z: depth of the middle.
        heading: radians; 0 drives away from the camera, pi towards it.
    """

    def __init__(self, scene: Scene, x: float, z: float, heading: float) -> None:
        self.scene = scene
        self.x, self.z = x, z
        self.cos, self.sin = math.cos(heading), math.sin(heading)
        # Which of the two sides and ends faces the camera: sign of the view vector in local coordinates.
        self.camera_l = -(x * self.sin + z * self.cos)
        self.camera_w = -(x * self.cos - z * self.sin)

        self.strokes = Strokes(scene.canvas, self.pixels)
        self._haze, self._veil = scene.light.haze, scene.light.veil(z)

    def fade(self, color: Color) -> Color:
        """Aerial perspective of a colour at the depth of the vehicle."""
        return mix(color, self._haze, self._veil)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Project (..., 3) local points (l, w, y) to (..., 2) canvas coordinates."""
        length, width = points[..., 0], points[..., 1]
        xs = self.x + length * self.sin + width * self.cos
        zs = self.z + length * self.cos - width * self.sin
        return self.scene.camera.project_parts(xs, points[..., 2], zs)

    def footprint(self, length: float, width: float) -> np.ndarray:
        """Ground corners (x, z) of a centred rectangle, (4, 2)."""
        corners = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (length / 2, width / 2)
        xs = self.x + corners[:, 0] * self.sin + corners[:, 1] * self.cos
        zs = self.z + corners[:, 0] * self.cos - corners[:, 1] * self.sin
        return np.stack([xs, zs], axis=1)


@dataclass
class Body:
    """Extruded solid being drawn.

    Attributes:
        pose: where it is.
        label: train id.
        half: half its width in metres.
    """

    pose: Pose
    label: int
    half: float

    @property
    def side(self) -> int:
        """The visible side: 1 right, -1 left."""
        return 1 if self.pose.camera_w > 0 else -1

    def fill(self, points: np.ndarray, color: Color) -> None:
        """Fill polygons (M, N, 3) of local coordinates."""
        self.pose.strokes.add(points, self.pose.fade(color), self.label)

    def shell(self, profile: Sequence[tuple[float, float]], color: Color, taper: float = 0.0) -> None:
        """Draw the solid with side profile (l, y), counter-clockwise; ``taper`` narrows it per metre above 0.9 m."""
        outline = np.asarray(profile, float)
        half = self.half - taper * np.maximum(outline[:, 1] - 0.9, 0)
        left = np.stack([outline[:, 0], -half, outline[:, 1]], axis=1)
        right = left * (1, -1, 1)
        faces = np.stack([left, np.roll(left, -1, axis=0), np.roll(right, -1, axis=0), right], axis=1)
        rising = outline - np.roll(outline, -1, axis=0)
        for index in self._far_to_near(faces):
            upward = abs(rising[index, 0]) / (math.hypot(*rising[index]) + 1e-6)
            shade = scale(color, 0.75 + 0.4 * upward)
            self.fill(faces[index : index + 1], shade)
        self.fill((right if self.side > 0 else left)[None], scale(color, 0.92))

    def _far_to_near(self, faces: np.ndarray) -> list[int]:
        centres = faces.mean(axis=1)
        depths = centres[:, 0] * self.pose.cos + centres[:, 2] * 0.01
        return np.argsort(-depths, kind="stable").tolist()

    def on_side(
        self, rectangles: Sequence[tuple[float, float, float, float]], color: Color, taper: float = 0.0
    ) -> None:
        """Fill rectangles (l0, y0, l1, y1) on the visible side."""
        boxes = np.asarray(rectangles, float)
        self.side_polygons(boxes[:, _CORNERS].reshape(-1, 4, 2), color, taper)

    def side_polygons(self, outlines: np.ndarray, color: Color, taper: float = 0.0) -> None:
        """Fill polygons (M, N, 2) of (l, y) on the visible side."""
        width = self.side * (self.half + 0.01 - taper * np.maximum(outlines[..., 1] - 0.9, 0))
        points = np.empty((*outlines.shape[:-1], 3))
        points[..., 0], points[..., 1], points[..., 2] = outlines[..., 0], width, outlines[..., 1]
        self.fill(points, color)

    def on_end(self, rectangles: Sequence[tuple[float, float, float, float]], l: float, color: Color) -> None:  # noqa: E741
        """Fill rectangles (w0, y0, w1, y1) across the vehicle at position l."""
        boxes = np.asarray(rectangles, float)
        points = np.empty((len(boxes), 4, 3))
        points[..., 0], points[..., 1:] = l, boxes[:, _CORNERS].reshape(-1, 4, 2)
        self.fill(points, color)

    def wheels(self, positions: Sequence[float], radius: float) -> None:
        """Draw tyres and hubs on the visible side, and the ends of the tyres under the body."""
        for l in positions:  # noqa: E741
            centre = np.array((l, radius))
            self.side_polygons((CIRCLE * radius + centre)[None], _RUBBER)
            if self.pose.z < DETAIL_DEPTH:
                self.side_polygons((CIRCLE * radius * 0.58 + centre)[None], (135, 137, 140))
                self.side_polygons((CIRCLE * radius * 0.2 + centre)[None], (60, 60, 62))

    def axle(self, l: float, radius: float) -> None:  # noqa: E741
        """Draw the tyres seen from the end, before the shell."""
        inner, outer = self.half - 0.22, self.half - 0.02
        self.on_end(((-outer, 0.0, -inner, radius), (inner, 0.0, outer, radius)), l, _RUBBER)

    @property
    def sees_front(self) -> bool:
        """Whether the front faces the camera."""
        return self.pose.camera_l > 0


# (l, y) from the rear bumper over the roof to the front bumper; then window outlines on the side.
_CARS = {
    "hatchback": (
        ((-2.0, 0.32), (2.0, 0.3), (2.05, 0.62), (1.85, 0.82), (1.0, 0.98),
         (0.2, 1.47), (-1.35, 1.5), (-1.85, 1.0), (-2.02, 0.85)),
        (((0.75, 1.0), (0.15, 1.38), (-0.4, 1.4), (-0.4, 0.98)),
         ((-0.5, 0.98), (-0.5, 1.4), (-1.25, 1.4), (-1.6, 1.0))),
    ),
    "saloon": (
        ((-2.3, 0.34), (2.25, 0.3), (2.3, 0.62), (2.1, 0.8), (1.05, 0.95),
         (0.3, 1.4), (-0.95, 1.43), (-1.65, 1.02), (-2.25, 0.95)),
        (((0.85, 0.98), (0.25, 1.33), (-0.3, 1.35), (-0.3, 0.97)),
         ((-0.4, 0.97), (-0.4, 1.35), (-0.92, 1.35), (-1.4, 1.0))),
    ),
    "estate": (
        ((-2.3, 0.34), (2.2, 0.3), (2.25, 0.64), (2.05, 0.82), (1.05, 0.97),
         (0.3, 1.45), (-1.8, 1.5), (-2.2, 1.05), (-2.3, 0.9)),
        (((0.85, 1.0), (0.25, 1.37), (-0.3, 1.39), (-0.3, 0.98)),
         ((-0.4, 0.98), (-0.4, 1.4), (-1.75, 1.4), (-2.0, 1.02))),
    ),
    "suv": (
        ((-2.2, 0.45), (2.15, 0.42), (2.2, 0.8), (2.1, 1.02), (1.1, 1.15),
         (0.5, 1.7), (-1.75, 1.75), (-2.15, 1.2), (-2.22, 1.0)),
        (((1.0, 1.18), (0.45, 1.6), (-0.2, 1.62), (-0.2, 1.15)),
         ((-0.3, 1.15), (-0.3, 1.63), (-1.7, 1.63), (-1.95, 1.2))),
    ),
    "van": (
        ((-2.35, 0.4), (2.3, 0.36), (2.35, 0.8), (2.2, 1.0), (1.75, 1.15),
         (1.1, 1.9), (-2.25, 1.98), (-2.38, 1.1)),
        (((1.6, 1.2), (1.05, 1.75), (0.5, 1.78), (0.5, 1.15)),
         ((0.35, 1.15), (0.35, 1.78), (-2.0, 1.8), (-2.0, 1.15))),
    ),
}  # fmt: skip


def draw_car(pose: Pose, dice: Dice, lamps: bool) -> None:
    """Draw one of five kinds of car, about 4 to 4.7 m long."""
    profile, windows = _CARS[dice.pick(tuple(_CARS))]
    paint = dice.tone(dice.pick(PAINTS), 22)
    body, taper = Body(pose, LABEL["car"], dice.uniform(0.86, 0.95)), 0.22
    glass = mix(_GLASS, pose.scene.light.haze, dice.uniform(0.05, 0.35))
    outline = np.asarray(profile)
    rear, front = outline[:, 0].min(), outline[:, 0].max()
    body.axle(front - 0.6 if body.sees_front else rear + 0.6, 0.34)
    body.shell(profile, paint, taper)
    _draw_screen(body, outline, glass, taper)
    for window in windows:
        body.side_polygons(np.asarray(window)[None], glass, taper)
    if pose.z < DETAIL_DEPTH:
        sill, gap, handles = (rear + 0.1, 0.3, front - 0.1, 0.42), (-0.36, 0.45, -0.34, 0.95), (-0.7, 0.82, -0.5, 0.86)
        body.on_side((sill, gap, handles, (0.25, 0.82, 0.45, 0.86)), scale(paint, 0.55))
    body.wheels((rear + 0.75, front - 0.75), 0.33)
    (_draw_front if body.sees_front else _draw_rear)(body, front if body.sees_front else rear, paint, lamps)


def _draw_screen(body: Body, outline: np.ndarray, glass: Color, taper: float) -> None:
    """Glaze the windscreen or rear window: the sloping segment next to the roof."""
    top = outline[:, 1].max()
    roof = np.flatnonzero(outline[:, 1] > top - 0.1)
    index = roof.min() if body.sees_front else roof.max()
    upper, lower = outline[index], outline[index - 1 if body.sees_front else (index + 1) % len(outline)]
    upper, lower = upper * 0.9 + lower * 0.1, upper * 0.12 + lower * 0.88
    corners = []
    for point, sign in ((upper, -1), (upper, 1), (lower, 1), (lower, -1)):
        half = (body.half - taper * max(point[1] - 0.9, 0)) * 0.88
        corners.append((point[0], sign * half, point[1] + 0.005))
    body.fill(np.asarray(corners)[None], glass)


def _draw_front(body: Body, l: float, paint: Color, lamps: bool) -> None:  # noqa: E741
    half = body.half
    body.on_end(((-half * 0.55, 0.45, half * 0.55, 0.66),), l, (30, 31, 34))
    body.on_end(((-half, 0.3, half, 0.4),), l, scale(paint, 0.5))
    lamp = _HEADLIGHT if lamps else mix(_HEADLIGHT, (120, 125, 130), 0.4)
    body.on_end(((-half * 0.95, 0.58, -half * 0.62, 0.74), (half * 0.62, 0.58, half * 0.95, 0.74)), l, lamp)
    body.on_end(((-0.26, 0.42, 0.26, 0.53),), l, (235, 235, 230))


def _draw_rear(body: Body, l: float, paint: Color, lamps: bool) -> None:  # noqa: E741
    half = body.half
    body.on_end(((-half, 0.34, half, 0.46),), l, scale(paint, 0.5))
    lamp = (255, 60, 45) if lamps else _TAIL_LIGHT
    body.on_end(((-half * 0.97, 0.7, -half * 0.68, 0.9), (half * 0.68, 0.7, half * 0.97, 0.9)), l, lamp)
    body.on_end(((-0.26, 0.56, 0.26, 0.67),), l, (235, 235, 230))


def _box(l0: float, y0: float, l1: float, y1: float) -> tuple[tuple[float, float], ...]:
    return ((l0, y0), (l1, y0), (l1, y1), (l0, y1))


def _draw_end_glass(body: Body, l: float, low: float, high: float, glass: Color) -> None:  # noqa: E741
    body.on_end(((-body.half * 0.9, low, body.half * 0.9, high),), l, glass)


def draw_truck(pose: Pose, dice: Dice, lamps: bool) -> float:
    """Draw a lorry with cab and box or tarpaulin body; return its length."""
    body = Body(pose, LABEL["truck"], 1.22)
    length, height = dice.uniform(6.5, 9.5), dice.uniform(3.0, 3.8)
    paint, cargo = dice.tone(dice.pick(PAINTS), 22), dice.tone(dice.pick(PAINTS), 30)
    rear, front = -length / 2, length / 2
    stripe = dice.tone(dice.pick(PAINTS), 30)
    body.axle(front - 1 if body.sees_front else rear + 1, 0.5)
    parts = [
        lambda: _draw_cargo(body, dice, (rear, front - 2.1), height, cargo, stripe),
        lambda: _draw_cab(body, front, paint, lamps),
    ]
    body.on_side(((rear + 0.2, 0.5, front - 0.2, 0.95),), (45, 46, 50))
    for part in parts if body.sees_front else parts[::-1]:
        part()
    body.wheels((rear + 1.1, rear + 2.2, front - 1.1), 0.5)
    if not body.sees_front:
        lamp = (255, 60, 45) if lamps else _TAIL_LIGHT
        body.on_end(((-1.15, 0.55, 1.15, 0.9),), rear, (40, 40, 44))
        body.on_end(((-1.1, 0.65, -0.8, 0.82), (0.8, 0.65, 1.1, 0.82)), rear, lamp)
        body.on_end(((-0.3, 0.62, 0.3, 0.75),), rear, (235, 235, 230))
    return length


def _draw_cargo(body: Body, dice: Dice, span: tuple[float, float], height: float, cargo: Color, stripe: Color) -> None:
    rear, front = span
    body.shell(_box(rear, 0.9, front, height), cargo)
    ribs = np.linspace(rear + 0.3, front - 0.3, 8)
    body.on_side([(rib, 1.0, rib + 0.05, height - 0.1) for rib in ribs], scale(cargo, 0.75))
    low = dice.uniform(1.5, height - 1.2)
    if dice.chance(0.6):
        body.on_side(((rear + 0.8, low, front - 0.8, low + 0.6),), stripe)
    if not body.sees_front:
        body.on_end(((-1.14, 1.0, 1.14, height - 0.08),), rear, scale(cargo, 0.88))
        body.on_end(
            ((-0.03, 1.0, 0.03, height - 0.08), (-0.5, 1.2, -0.44, height - 0.3), (0.44, 1.2, 0.5, height - 0.3)),
            rear,
            scale(cargo, 0.5),
        )


def _draw_cab(body: Body, front: float, paint: Color, lamps: bool) -> None:
    glass = mix(_GLASS, body.pose.scene.light.haze, 0.15)
    body.shell(((front - 1.9, 0.5), (front, 0.5), (front, 1.6), (front - 0.25, 2.75), (front - 1.9, 2.85)), paint)
    body.side_polygons(
        np.array((((front - 0.2, 1.65), (front - 0.4, 2.45), (front - 1.3, 2.45), (front - 1.3, 1.65)),)), glass
    )
    body.on_side(((front - 1.35, 0.6, front - 1.32, 1.65),), scale(paint, 0.6))
    if body.sees_front:
        top = np.array(
            ((front + 0.01, -1.1, 1.65), (front + 0.01, 1.1, 1.65), (front - 0.2, 1.1, 2.5), (front - 0.2, -1.1, 2.5))
        )
        body.fill(top[None], glass)
        body.on_end(((-0.8, 0.9, 0.8, 1.35),), front, (35, 36, 40))
        body.on_end(((-1.2, 0.5, 1.2, 0.72),), front, scale(paint, 0.5))
        body.on_end(
            ((-1.15, 0.75, -0.8, 0.95), (0.8, 0.75, 1.15, 0.95)), front, _HEADLIGHT if lamps else (190, 190, 180)
        )


def draw_bus(pose: Pose, dice: Dice, lamps: bool) -> float:
    """Draw a city bus with a band of windows, doors and a lit destination display; return its length."""
    body = Body(pose, LABEL["bus"], 1.26)
    length, height = dice.uniform(9.0, 12.0), dice.uniform(2.95, 3.25)
    paint, stripe = dice.tone(dice.pick(PAINTS), 25), dice.tone(dice.pick(PAINTS), 25)
    glass = mix(_GLASS, pose.scene.light.haze, dice.uniform(0.05, 0.3))
    rear, front = -length / 2, length / 2
    body.axle(front - 1 if body.sees_front else rear + 1, 0.5)
    body.shell(((rear, 0.35), (front, 0.35), (front + 0.05, 1.3), (front - 0.1, height), (rear, height)), paint)
    body.on_side(((rear, 0.36, front, 0.75),), stripe)
    body.on_side(((rear + 0.3, 1.35, front - 0.2, 2.45),), scale(glass, 0.8))
    panes = np.linspace(rear + 0.35, front - 0.3, 8)
    body.on_side([(a + 0.05, 1.4, b - 0.05, 2.4) for a, b in pairwise(panes)], glass)
    doors = (front - 1.5, rear + length * 0.45)
    body.on_side([(door, 0.45, door + 1.1, 2.45) for door in doors], scale(glass, 1.25))
    body.on_side([(door + 0.52, 0.45, door + 0.58, 2.45) for door in doors], scale(stripe, 0.7))
    body.wheels((rear + 2.6, front - 2.4), 0.48)
    end = front if body.sees_front else rear
    _draw_end_glass(body, end, 1.2 if body.sees_front else 1.6, 2.5, glass)
    body.on_end(((-0.9, height - 0.42, 0.9, height - 0.14),), end, (25, 22, 20))
    body.on_end(((-0.7, height - 0.36, 0.5, height - 0.2),), end, (255, 175, 40))
    lamp = (_HEADLIGHT if lamps else (200, 200, 190)) if body.sees_front else _TAIL_LIGHT
    body.on_end(((-1.2, 0.55, -0.85, 0.78), (0.85, 0.55, 1.2, 0.78)), end, lamp)
    body.on_end(((-1.24, 0.36, 1.24, 0.46),), end, scale(stripe, 0.6))
    return length


def draw_train(pose: Pose, dice: Dice, lamps: bool, length: float) -> None:
    """Draw a tram of several cars with rounded ends, window band, skirt and pantograph."""
    body = Body(pose, LABEL["train"], 1.3)
    paint = dice.tone(dice.pick(((200, 40, 40), (235, 225, 190), (240, 205, 50), (225, 228, 230), (45, 110, 80))), 20)
    stripe = dice.tone(dice.pick(PAINTS), 25)
    glass = mix(_GLASS, pose.scene.light.haze, dice.uniform(0.05, 0.3))
    cars = max(1, round(length / 9))
    edges = np.linspace(-length / 2, length / 2, cars + 1)
    order = range(cars) if body.sees_front else range(cars - 1, -1, -1)
    for index in order:
        _draw_tram_car(body, edges[index] + 0.12, edges[index + 1] - 0.12, (paint, stripe, glass))
    end, sign = (edges[-1] - 0.12, 1) if body.sees_front else (edges[0] + 0.12, -1)
    end += sign * 0.3
    _draw_end_glass(body, end, 1.5, 2.75, glass)
    body.on_end(((-0.7, 2.85, 0.7, 3.1),), end, (25, 22, 20))
    body.on_end(((-0.4, 2.9, 0.5, 3.05),), end, (255, 185, 60))
    body.on_end(((-1.28, 0.4, 1.28, 0.85),), end, scale(stripe, 0.8))
    lamp = (_HEADLIGHT if lamps else (215, 213, 200)) if body.sees_front else _TAIL_LIGHT
    body.on_end(((-1.0, 1.0, -0.7, 1.25), (0.7, 1.0, 1.0, 1.25)), end, lamp)


def _draw_tram_car(body: Body, rear: float, front: float, colors: tuple[Color, Color, Color]) -> None:
    paint, stripe, glass = colors
    profile = (
        (rear, 0.25), (front, 0.25), (front + 0.3, 1.4), (front - 0.05, 3.0), (front - 0.4, 3.3), (rear + 0.4, 3.3),
        (rear + 0.05, 3.0), (rear - 0.3, 1.4),
    )  # fmt: skip
    middle = (rear + front) / 2
    body.shell(profile, paint)
    body.fill(
        np.array((((middle - 1.2, 0.0, 3.3), (middle, 0.0, 4.3), (middle + 0.1, 0.0, 4.3), (middle - 1.1, 0.0, 3.3)),)),
        (50, 50, 52),
    )
    body.on_side(((rear, 0.26, front, 0.8),), stripe)
    body.on_side(((rear + 0.2, 1.4, front - 0.2, 2.6),), scale(glass, 0.8))
    panes = np.linspace(rear + 0.25, front - 0.25, 6)
    body.on_side([(a + 0.08, 1.5, b - 0.08, 2.5) for a, b in pairwise(panes)], glass)
    body.on_side(((middle - 0.7, 0.4, middle + 0.7, 2.6),), scale(paint, 0.7))
    body.on_side(((middle - 0.6, 1.0, middle - 0.05, 2.5), (middle + 0.05, 1.0, middle + 0.6, 2.5)), glass)
