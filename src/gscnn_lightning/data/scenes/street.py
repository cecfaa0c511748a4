"""Ground, frontages and backdrop of the street scenes."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gscnn_lightning.data.scenes.canvas import LABEL, VOID, Color, Scene, Strokes, mix, scale
from gscnn_lightning.data.scenes.light import tint_of_window
from gscnn_lightning.data.scenes.objects import LEAVES, draw_bush, draw_clump, draw_conifer, draw_tree

ASPHALT: tuple[Color, ...] = ((88, 88, 92), (104, 102, 100), (74, 76, 82), (122, 118, 112), (96, 92, 98))
PAVING: tuple[Color, ...] = ((150, 144, 138), (128, 124, 122), (165, 152, 138), (140, 120, 108), (112, 112, 114))
GRASS: tuple[Color, ...] = ((105, 130, 65), (128, 140, 75), (150, 140, 90), (90, 115, 60), (140, 115, 80))
FACADES: tuple[Color, ...] = (
    (190, 170, 140), (165, 95, 75), (205, 200, 190), (140, 135, 130), (210, 185, 120), (120, 90, 78), (180, 195, 200),
    (215, 160, 130), (150, 160, 140), (98, 100, 108), (225, 215, 200), (132, 74, 62),
)  # fmt: skip
MASONRY: tuple[Color, ...] = ((150, 145, 138), (150, 85, 65), (170, 160, 140), (118, 116, 114), (190, 180, 165))
_WHITE: Color = (222, 222, 216)

_DEPTHS = np.geomspace(1.0, 420.0, 37)
_BAND = 6  # samples of _DEPTHS that share one degree of haze


def draw_strip(
    scene: Scene, s0: float, s1: float, color: Color, label: int, z0: float = 1.0, z1: float = 420.0
) -> None:
    """Paint the ground between two lateral positions along the street."""
    inner = _DEPTHS[(z0 < _DEPTHS) & (z1 > _DEPTHS)]
    depths = np.concatenate([[z0], inner, [z1]])
    xs = scene.street.xs(np.array(((s0,), (s1,))), depths)
    edges = scene.camera.project_parts(xs, np.zeros(1), np.stack([depths, depths]))
    for start in range(0, len(depths) - 1, _BAND):
        end = start + _BAND + 1
        outline = np.concatenate([edges[0, start:end], edges[1, start:end][::-1]])
        middle = float(depths[start] + depths[min(end, len(depths)) - 1]) / 2
        scene.canvas.polygon(outline, scene.light.fade(color, middle), label)


@dataclass(frozen=True)
class Verge:
    """Cross-section of one side of the street, from the kerb outwards.

    Attributes:
        side: -1 left, 1 right.
        pavement: width of the pavement in metres; 0 for none.
        strip: width of the grass strip between pavement and frontage.
        line: street position s of the frontage.
        style: frontage style, a key of the frontage tables.
    """

    side: int
    pavement: float
    strip: float
    line: float
    style: str


def draw_ground(scene: Scene, verges: tuple[Verge, Verge]) -> None:
    """Paint land, road, lane markings and pavements."""
    dice, street, canvas = scene.dice, scene.street, scene.canvas
    grass, asphalt, paving = dice.tone(dice.pick(GRASS)), dice.tone(dice.pick(ASPHALT)), dice.tone(dice.pick(PAVING))
    top = max(0, round(scene.camera.horizon))
    canvas.fill_rows(top, scene.light.fade(grass, 300.0), LABEL["terrain"])
    for verge in verges:
        draw_strip(scene, street.kerb(verge.side), verge.side * 120.0, grass, LABEL["terrain"])
        if verge.style in ("city", "mixed"):
            draw_strip(
                scene, street.kerb(verge.side), verge.line + verge.side * 9.0, scale(paving, 0.9), LABEL["sidewalk"]
            )
    draw_strip(scene, street.left, street.right, asphalt, LABEL["road"])
    _draw_markings(scene)
    for verge in verges:
        _draw_verge(scene, verge, paving, grass)
    _draw_patches(scene, asphalt)


def _draw_verge(scene: Scene, verge: Verge, paving: Color, grass: Color) -> None:
    kerb, side = scene.street.kerb(verge.side), verge.side
    edge = kerb + side * verge.pavement
    if verge.pavement > 0:
        draw_strip(scene, kerb, edge, paving, LABEL["sidewalk"])
        draw_strip(scene, kerb, kerb + side * 0.18, scale(paving, 1.22), LABEL["sidewalk"])
        _draw_slabs(scene, kerb, edge, scale(paving, 0.82))
    if verge.strip > 0:
        draw_strip(scene, edge, edge + side * verge.strip, grass, LABEL["terrain"])


def _draw_slabs(scene: Scene, s0: float, s1: float, color: Color) -> None:
    """Draw the joints of the paving across the pavement."""
    zs = np.arange(3.0, 26.0, 0.9)
    ends = [np.stack([scene.street.xs(s, zs), np.zeros(len(zs)), zs], axis=1) for s in (s0, s1)]
    scene.canvas.lines(scene.camera.project(np.stack(ends, axis=1)), 1, color, LABEL["sidewalk"])
    middle = (s0 + s1) / 2
    draw_strip(scene, middle - 0.02, middle + 0.02, color, LABEL["sidewalk"], 2.0, 40.0)


def _draw_markings(scene: Scene) -> None:
    dice, street, road = scene.dice, scene.street, LABEL["road"]
    width = street.right - street.left
    paint = dice.tone(_WHITE if dice.chance(0.85) else (225, 180, 70), 14)
    lanes = max(2, round(width / 3.4))
    if dice.chance(0.85):
        gap = dice.uniform(2.0, 6.0)
        for lane in range(1, lanes):
            s = street.left + width * lane / lanes
            if lane * 2 == lanes and dice.chance(0.3):
                draw_strip(scene, s - 0.08, s + 0.08, paint, road, 1.0, 150.0)
                continue
            start = dice.uniform(2, 6)
            while start < 90:
                draw_strip(scene, s - 0.08, s + 0.08, paint, road, start, start + 3.0)
                start += 3.0 + gap
    if dice.chance(0.5):
        for s in (street.left + 0.3, street.right - 0.3):
            draw_strip(scene, s - 0.07, s + 0.07, paint, road, 1.0, 150.0)
    if dice.chance(0.3):
        _draw_crossing(scene, dice.uniform(7, 25), paint)


def _draw_crossing(scene: Scene, z: float, paint: Color) -> None:
    """Draw a zebra crossing."""
    s = scene.street.left + 0.5
    while s + 0.5 < scene.street.right:
        draw_strip(scene, s, s + 0.5, paint, LABEL["road"], z, z + 3.0)
        s += 1.0


def _draw_patches(scene: Scene, asphalt: Color) -> None:
    """Draw repairs and manhole covers on the road."""
    dice, street = scene.dice, scene.street
    for _ in range(dice.integer(0, 4)):
        s, z = dice.uniform(street.left + 0.4, street.right - 1.6), dice.uniform(5, 30)
        tone = scale(asphalt, dice.uniform(0.78, 1.12))
        draw_strip(scene, s, s + dice.uniform(0.5, 1.5), tone, LABEL["road"], z, z + dice.uniform(0.6, 8.0))


def draw_tracks(scene: Scene, s: float, ballast: bool) -> None:
    """Draw tram rails: on ballast (void, as Cityscapes' "rail track") or set into the road."""
    if ballast:
        draw_strip(scene, s - 1.6, s + 1.6, scene.dice.tone((120, 110, 100)), VOID)
    label = VOID if ballast else LABEL["road"]
    for rail in (-0.72, 0.72):
        draw_strip(
            scene, s + rail - 0.05, s + rail + 0.05, (70, 66, 64) if not ballast else (165, 160, 155), label, 1.0, 200.0
        )


# Backdrop


def draw_backdrop(scene: Scene) -> None:
    """Draw the far distance: hills, woods or roofs along the horizon."""
    dice, canvas = scene.dice, scene.canvas
    unit = scene.camera.focal / 260.0  # canvas pixels per metre at 260 m
    columns = np.linspace(0, canvas.width, 33)
    kind = dice.weighted({"woods": 0.4, "hills": 0.25, "town": 0.35})
    base = scene.camera.horizon + 2
    if kind == "town":
        for column in columns[:-1]:
            height, width = dice.uniform(4, 26) * unit, dice.uniform(0.6, 1.6) * canvas.width / 32
            box = np.array(((0, 0), (width, 0), (width, -height), (0, -height))) + np.array((column, base))
            canvas.polygon(box, scene.light.fade(dice.tone(dice.pick(FACADES)), 150.0), LABEL["building"])
        return
    phase, swell = dice.uniform(0, 6), dice.uniform(6, 14) if kind == "woods" else dice.uniform(10, 40)
    waves = [swell * (1.2 + math.sin(phase + 4 * column / canvas.width)) + dice.uniform(0, 5) for column in columns]
    ridge = np.stack([columns, base - np.asarray(waves) * unit], axis=1)
    outline = np.concatenate([ridge, [(canvas.width, base), (0, base)]])
    color = scene.light.fade(scale(dice.tone(dice.pick(LEAVES[:3])), 0.8), 130.0 if kind == "woods" else 220.0)
    canvas.polygon(outline, color, LABEL["vegetation"])


# Frontages

_FRONTAGES: dict[str, dict[str, float]] = {
    "city": {"building": 0.86, "wall": 0.06, "fence": 0.05, "gap": 0.03},
    "mixed": {"building": 0.5, "wall": 0.18, "fence": 0.18, "hedge": 0.08, "gap": 0.06},
    "suburb": {"house": 0.22, "fence": 0.3, "wall": 0.22, "hedge": 0.2, "gap": 0.06},
    "park": {"trees": 0.5, "fence": 0.2, "hedge": 0.12, "wall": 0.08, "gap": 0.1},
    "country": {"trees": 0.3, "gap": 0.55, "fence": 0.15},
}


def add_frontage(scene: Scene, verge: Verge) -> None:
    """Line one side of the street with houses, walls, fences, hedges and trees, to be painted later."""
    dice = scene.dice
    z, height = dice.uniform(-4.0, 4.0), dice.uniform(8.0, 20.0)
    while z < 115.0:
        kind = dice.weighted(_FRONTAGES[verge.style])
        span = dice.uniform(9, 20) if kind in ("building", "house") else dice.uniform(8, 30)
        start, end = max(z, 1.2), z + span
        if end > 2.5:
            _add_segment(scene, verge, kind, (start, end), height)
        z = end + (dice.uniform(0, 6) if kind == "house" else 0.0)


def _add_segment(scene: Scene, verge: Verge, kind: str, span: tuple[float, float], height: float) -> None:
    dice = scene.dice
    end = span[1]
    x = scene.street.x(verge.line, end)
    if not any(scene.sees(scene.street.x(verge.line, z), z, 12.0) for z in span):
        return
    if kind in ("building", "house"):
        tall = height * dice.uniform(0.75, 1.25) if kind == "building" else dice.uniform(5.0, 7.5)
        set_back = 0.0 if kind == "building" else dice.uniform(3.0, 9.0)
        line = verge.line + verge.side * set_back
        scene.add(end, end, x, lambda: draw_building(scene, verge.side, line, span, tall))
        if kind == "building":
            _shade_frontage(scene, verge, span, tall)
    elif kind == "wall":
        scene.add(end, end, x, lambda: draw_wall(scene, verge, span))
        _shade_frontage(scene, verge, span, 2.0)
    elif kind == "fence":
        scene.add(end, end, x, lambda: draw_fence(scene, verge, span))
    elif kind == "hedge":
        scene.add(end, end, x, lambda: draw_hedge(scene, verge, span))
    if kind in ("trees", "fence", "wall", "gap", "house", "hedge"):
        _add_garden(scene, verge, span, 0.16 if kind == "trees" else 0.05)


def _add_garden(scene: Scene, verge: Verge, span: tuple[float, float], density: float) -> None:
    """Plant trees and bushes behind the frontage line."""
    dice = scene.dice
    start, end = span
    for _ in range(math.ceil((end - start) * density * dice.uniform(0.5, 1.5))):
        z, s = dice.uniform(max(start, 5.0), max(end, 6.0)), verge.line + verge.side * dice.uniform(3.0, 16.0)
        add_plant(scene, scene.street.x(s, z), z, key=end + 0.5)


def add_plant(scene: Scene, x: float, z: float, key: float | None = None) -> None:
    """Plant a tree, fir or bush; ``key`` replaces its depth in the painting order."""
    dice = scene.dice
    if not scene.sees(x, z, 4.0):
        return
    depth, color = z if key is None else key, dice.tone(dice.pick(LEAVES), 14)
    kind = dice.weighted({"tree": 0.6, "conifer": 0.15, "bush": 0.25})
    if kind == "tree":
        height = dice.uniform(5.0, 11.0)
        scene.add(depth, depth, x, lambda: draw_tree(scene, x, z, height, color))
        scene.shade_ground(_square(x, z, height * 0.22), height, contact=False)
    elif kind == "conifer":
        height = dice.uniform(5.0, 11.0)
        scene.add(depth, depth, x, lambda: draw_conifer(scene, x, z, height, color))
        scene.shade_ground(_square(x, z, height * 0.12), height, contact=False)
    else:
        size = dice.uniform(0.8, 2.4)
        scene.add(depth, depth, x, lambda: draw_bush(scene, x, z, size, color))
        scene.shade_ground(_square(x, z, size * 0.5), size * 0.7)


def _square(x: float, z: float, half: float) -> np.ndarray:
    return np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * half + np.array((x, z))


def _shade_frontage(scene: Scene, verge: Verge, span: tuple[float, float], height: float) -> None:
    street = scene.street
    near, far = street.x(verge.line, span[0]), street.x(verge.line, span[1])
    foot = np.array(
        ((near, span[0]), (far, span[1]), (far + verge.side * 6, span[1]), (near + verge.side * 6, span[0]))
    )
    scene.shade_ground(foot, height, contact=False)


class Facade:
    """Upright rectangle along the street with local coordinates (t, y), t in [0, length] from near to far.

    Args:
        scene: where to draw.
        start: ground point (x, z) of the near end.
        end: ground point (x, z) of the far end.
    """

    def __init__(self, scene: Scene, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.scene = scene
        self.start, self.step = np.asarray(start), np.asarray(end) - start
        self.length = float(np.hypot(*self.step))
        self.step = self.step / max(self.length, 1e-6)
        self.depth = (start[1] + end[1]) / 2
        self.strokes = Strokes(scene.canvas, self.pixels)
        self._haze, self._veil = scene.light.haze, scene.light.veil(self.depth)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 2) local points to canvas coordinates."""
        t = points[..., 0]
        xs, zs = self.start[0] + t * self.step[0], self.start[1] + t * self.step[1]
        return self.scene.camera.project_parts(xs, points[..., 1], zs)

    def boxes(self, rectangles: np.ndarray, color: Color, label: int) -> None:
        """Fill rectangles (M, 4) of (t0, y0, t1, y1)."""
        if len(rectangles):
            corners = rectangles[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
            self.strokes.add(corners, mix(color, self._haze, self._veil), label)

    def draw(self) -> None:
        """Put everything on the canvas."""
        self.strokes.draw()

    def box(self, t0: float, y0: float, t1: float, y1: float, color: Color, label: int) -> None:
        """Fill one rectangle."""
        self.boxes(np.array([(t0, y0, t1, y1)]), color, label)


def _facade(scene: Scene, line: float, span: tuple[float, float]) -> Facade:
    return Facade(scene, (scene.street.x(line, span[0]), span[0]), (scene.street.x(line, span[1]), span[1]))


def draw_building(scene: Scene, side: int, line: float, span: tuple[float, float], height: float) -> None:
    """Draw a house: gable end, front with windows, ground floor with shop or doors, roof."""
    dice, label = scene.dice, LABEL["building"]
    front = _facade(scene, line, span)
    paint, roof = dice.tone(dice.pick(FACADES)), dice.tone(dice.pick(((120, 62, 48), (75, 72, 74), (95, 80, 70))))
    lit = 1.0 + 0.14 * scene.light.sun * side * (1 if scene.light.direction[0] > 0 else -1)
    paint = scale(paint, lit)
    x0 = front.start[0]
    gable = Facade(scene, (x0, span[0]), (x0 + side * 11.0, span[0] + 0.01))
    rise = dice.uniform(2.0, 4.0) if dice.chance(0.6) else 0.0
    if rise:
        points = np.array(((0.0, height), (5.5, height + rise), (11.0, height)))
        scene.canvas.polygon(gable.pixels(points), scene.light.fade(scale(paint, 0.72), span[0]), label)
        ridge = front.start[0] + side * 5.5, front.start[1] + front.step[1] * front.length
        far_x = ridge[0] + front.step[0] * front.length
        slope = ((x0, height, span[0]), (x0 + side * 5.5, height + rise, span[0]), (far_x, height + rise, ridge[1]))
        scene.quad((*slope, (far_x - side * 5.5, height, ridge[1])), roof, label)
    gable.box(0.0, 0.0, 11.0, height, scale(paint, 0.76), label)
    storeys = max(1, round((height - 3.2) / 3.0))
    gable.boxes(_window_grid(11.0, height, storeys, 3.4, 1.1), tint_of_window(dice, scene.light), label)
    front.box(0.0, 0.0, front.length, height, paint, label)
    _draw_windows(front, height, storeys, paint)
    _draw_ground_floor(front, paint, shop=height > 9 and dice.chance(0.5))
    front.box(0.0, height - 0.35, front.length, height, scale(paint, 0.8), label)
    gable.draw()
    front.draw()


def _window_grid(length: float, height: float, storeys: int, pitch: float, width: float) -> np.ndarray:
    """Lay out windows above the ground floor, (M, 4) of (t0, y0, t1, y1)."""
    columns = max(1, int(length / pitch))
    floor = (height - 3.6) / max(storeys, 1)
    centres = (np.arange(columns) + 0.5) * length / columns
    sills = 3.9 + floor * np.arange(max(storeys, 1))
    t, y = (grid.ravel() for grid in np.meshgrid(centres, sills))
    return np.stack([t - width / 2, y, t + width / 2, y + floor * 0.55], axis=1)


def _draw_windows(front: Facade, height: float, storeys: int, paint: Color) -> None:
    scene, label = front.scene, LABEL["building"]
    dice = scene.dice
    grid = _window_grid(front.length, height, storeys, dice.uniform(2.2, 3.6), dice.uniform(0.9, 1.5))
    trim = scale(paint, 1.25 if dice.chance(0.6) else 0.7)
    front.boxes(grid + np.array((-0.14, -0.16, 0.14, 0.14)), trim, label)
    panes = (tint_of_window(dice, scene.light), tint_of_window(dice, scene.light))
    turn = dice.integer(2, 4)
    front.boxes(grid[np.arange(len(grid)) % turn > 0], panes[0], label)
    front.boxes(grid[np.arange(len(grid)) % turn == 0], panes[1], label)
    if front.depth > 60.0:  # the rest would not be seen
        return
    middle = (grid[:, [0]] + grid[:, [2]]) / 2
    front.boxes(np.concatenate([middle - 0.04, grid[:, 1:2], middle + 0.04, grid[:, 3:]], axis=1), trim, label)
    if dice.chance(0.25):
        rails = grid[::2] * (1, 1, 1, 0) + (-0.3, -0.3, 0.3, 0)
        rails[:, 3] = rails[:, 1] + 0.9
        front.boxes(rails, scale(paint, 0.5), label)


def _draw_ground_floor(front: Facade, paint: Color, shop: bool) -> None:
    scene, label = front.scene, LABEL["building"]
    dice = scene.dice
    if shop:
        sign = dice.tone(dice.pick(((180, 40, 45), (40, 80, 150), (50, 110, 70), (225, 180, 60), (60, 60, 64))), 20)
        front.box(0.0, 0.0, front.length, 3.3, scale(paint, 0.7), label)
        count = max(1, int(front.length / 4))
        edges = np.linspace(0.3, front.length, count + 1)
        panes = [(a, 0.5, b - 0.4, 2.6) for a, b in pairwise(edges)]
        front.boxes(np.array(panes), tint_of_window(dice, scene.light), label)
        front.box(0.3, 2.7, front.length - 0.4, 3.3, sign, label)
        return
    count = max(1, int(front.length / 3.5))
    centres = (np.arange(count) + 0.5) * front.length / count
    doors = np.arange(count) % 3 == dice.integer(0, 2)
    windows = np.stack([centres - 0.6, np.full(count, 1.1), centres + 0.6, np.full(count, 2.6)], axis=1)
    front.boxes(windows[~doors], tint_of_window(dice, scene.light), label)
    entrances = windows[doors] * (1, 0, 1, 0) + (0, 0, 0, 2.4)
    front.boxes(entrances, dice.tone(dice.pick(((90, 55, 40), (40, 60, 50), (60, 62, 70)))), label)
    front.box(0.0, 0.0, front.length, 0.45, scale(paint, 0.7), label)


def draw_wall(scene: Scene, verge: Verge, span: tuple[float, float]) -> None:
    """Draw a free-standing wall of blocks or bricks with a coping; some carry graffiti."""
    dice, label = scene.dice, LABEL["wall"]
    wall, height = _facade(scene, verge.line, span), dice.uniform(1.5, 3.0)
    stone = dice.tone(dice.pick(MASONRY))
    end = Facade(scene, (wall.start[0], span[0]), (wall.start[0] + verge.side * 0.4, span[0] + 0.01))
    end.box(0.0, 0.0, 0.4, height, scale(stone, 0.75), label)
    wall.box(0.0, 0.0, wall.length, height, stone, label)
    courses = max(3, round(height / 0.4))
    rows = np.linspace(0, height, courses + 1)
    for index, (low, high) in enumerate(pairwise(rows)):
        ts = np.arange(0.5 * (index % 2), wall.length - 1.0, 2.0)
        blocks = np.stack([ts, np.full(len(ts), low), ts + 1.0, np.full(len(ts), high)], axis=1)
        wall.boxes(blocks, scale(stone, 1.13 if index % 3 else 0.86), label)
    joints = [(0.0, row - 0.02, wall.length, row + 0.02) for row in rows[1:-1]]
    wall.boxes(np.array(joints), scale(stone, 0.62), label)
    wall.box(0.0, height - 0.12, wall.length, height + 0.08, scale(stone, 1.2), label)
    end.draw()
    wall.draw()
    if dice.chance(0.35):
        _draw_graffiti(wall, height)


def _draw_graffiti(wall: Facade, height: float) -> None:
    dice = wall.scene.dice
    color = dice.tone(dice.pick(((210, 60, 120), (60, 140, 200), (230, 200, 60), (60, 160, 90))), 20)
    t = dice.uniform(0.1, 0.6) * wall.length
    stroke = [(t + 0.35 * k, height * (0.5 + dice.uniform(-0.25, 0.25))) for k in range(9)]
    pixels = wall.pixels(np.asarray(stroke))
    wall.scene.canvas.line(pixels, 0.14 * wall.scene.camera.focal / wall.depth, color, LABEL["wall"])


def draw_fence(scene: Scene, verge: Verge, span: tuple[float, float]) -> None:
    """Draw a fence that one can see through: iron bars, wooden pickets or horizontal rails."""
    dice, label = scene.dice, LABEL["fence"]
    fence, height = _facade(scene, verge.line, span), dice.uniform(1.1, 2.0)
    kind = dice.weighted({"bars": 0.4, "pickets": 0.35, "rails": 0.25})
    color = dice.tone(dice.pick(((60, 66, 64), (130, 134, 132), (130, 98, 66), (208, 204, 196), (66, 92, 72))))
    pitch, width = {"bars": (0.3, 0.06), "pickets": (0.22, 0.13), "rails": (2.2, 0.14)}[kind]
    ts = np.arange(0.0, fence.length, pitch)
    bars = np.stack([ts, np.zeros(len(ts)), ts + width, np.full(len(ts), height)], axis=1)
    rows = np.array((0.2, 0.9) if kind != "rails" else (0.22, 0.5, 0.78)) * height
    rails = np.array([(0.0, row, fence.length, row + 0.09) for row in rows])
    fence.boxes(rails, scale(color, 0.85), label)
    fence.boxes(bars, color, label)
    posts = np.arange(0.0, fence.length, 2.4)
    fence.boxes(
        np.stack([posts, posts * 0, posts + 0.14, posts * 0 + height + 0.12], axis=1), scale(color, 0.75), label
    )
    fence.draw()


def draw_hedge(scene: Scene, verge: Verge, span: tuple[float, float]) -> None:
    """Draw a clipped hedge with a leafy top."""
    dice, label = scene.dice, LABEL["vegetation"]
    hedge, height = _facade(scene, verge.line, span), dice.uniform(1.0, 2.2)
    color = dice.tone(dice.pick(LEAVES), 14)
    end = Facade(scene, (hedge.start[0], span[0]), (hedge.start[0] + verge.side * 1.2, span[0] + 0.01))
    end.box(0.0, 0.0, 1.2, height, scale(color, 0.7), label)
    hedge.box(0.0, 0.0, hedge.length, height, scale(color, 0.8), label)
    end.draw()
    hedge.draw()
    for z in np.arange(span[1], max(span[0], 3.0), -1.5 if span[0] < 30 else -3.0):
        x = scene.street.x(verge.line, z)
        draw_clump(scene, x, height * 0.6, z, (1.6, height * 1.1), color, dice.integer(0, 9))


def draw_ego_parts(scene: Scene) -> None:
    """Draw what belongs to the own car: bonnet, and sometimes a dark rim from rectification; both void."""
    dice, canvas = scene.dice, scene.canvas
    if dice.chance(0.6):
        rise, middle = dice.uniform(0.03, 0.1) * canvas.height, dice.uniform(0.42, 0.58) * canvas.width
        columns = np.linspace(-0.05, 1.05, 24) * canvas.width
        rows = canvas.height - rise * (1 - ((columns - middle) / (0.6 * canvas.width)) ** 2)
        outline = np.concatenate(
            [np.stack([columns, rows], 1), [(canvas.width * 1.05, canvas.height * 1.1), (-9.0, canvas.height * 1.1)]]
        )
        paint = mix(dice.tone((60, 62, 68), 30), scene.light.sky[1], 0.15)
        canvas.polygon(outline, paint, VOID)
        canvas.line(np.stack([columns, rows + 0.25 * rise], 1), rise * 0.1, scale(paint, 1.5), VOID)
    if dice.chance(0.2):
        rim = max(2, round(canvas.width * 0.006))
        canvas.pixels[:, :rim] = canvas.pixels[:, -rim:] = (8, 8, 8, VOID)
        canvas.pixels[:rim] = (8, 8, 8, VOID)
