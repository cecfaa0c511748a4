"""Scenes: the built-in data set of drawn street scenes with exact labels in the 19 Cityscapes classes.

Every picture is a function of (seed, index, size): a street with random cross-section, course, frontages, traffic,
people, weather and camera is laid out in metres and painted from far to near. Colour and label of every object are
drawn by the same call, so the labels are exact; texture, shadows, blur and noise touch the picture only.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from gscnn_lightning.classes import CITYSCAPES_TRAIN_ID_TO_ID
from gscnn_lightning.data.scenes.canvas import SUPERSAMPLE, Camera, Canvas, Dice, Frame, Item, Scene, Street
from gscnn_lightning.data.scenes.light import develop, draw_light, draw_sky
from gscnn_lightning.data.scenes.objects import (
    METAL,
    draw_bicycle,
    draw_bollard,
    draw_clutter,
    draw_motorcycle,
    draw_person,
    draw_pole,
    draw_rider,
    draw_rider_lengthwise,
    draw_street_lamp,
    draw_traffic_light,
    draw_traffic_sign,
)
from gscnn_lightning.data.scenes.street import (
    Verge,
    add_frontage,
    add_plant,
    draw_backdrop,
    draw_ego_parts,
    draw_ground,
    draw_tracks,
)
from gscnn_lightning.data.scenes.vehicles import Pose, draw_bus, draw_car, draw_train, draw_truck
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError

_MIN_SIDE = 64
_ASPECTS = (1.0, 3.0)  # width / height
_FRONTAGE_STYLES = {"city": 0.28, "mixed": 0.28, "suburb": 0.2, "park": 0.14, "country": 0.1}


def draw_scene(index: int, seed: int = 0, size: tuple[int, int] = (256, 512)) -> tuple[np.ndarray, np.ndarray]:
    """Draw one street scene.

    Args:
        index: number of the scene, 0 or more.
        seed: another seed gives another, equally distributed data set.
        size: (height, width) in pixels, at least 64 each and one to three times as wide as high. The layout of the
            scene does not depend on it.

    Returns:
        RGB picture (H, W, 3) uint8 and train ids (H, W) uint8, 255 = void.

    Raises:
        DataError: if index or seed is negative or the size is out of range.
    """
    _check(index, seed, size)
    scene, verges = _lay_out(Dice((seed, index)), size)
    draw_sky(scene)
    draw_backdrop(scene)
    draw_ground(scene, verges)
    _populate(scene, verges)
    for item in _painting_order(scene.items):
        item.paint()
    draw_ego_parts(scene)
    return develop(scene)


def _check(index: int, seed: int, size: tuple[int, int]) -> None:
    if index < 0 or seed < 0:
        raise DataError(f"scene index and seed must not be negative, got index {index} and seed {seed}")
    height, width = size
    if min(size) < _MIN_SIDE or not _ASPECTS[0] <= width / height <= _ASPECTS[1]:
        raise DataError(
            f"scenes cannot be drawn at {height} x {width} (height x width): choose at least {_MIN_SIDE} pixels each, "
            f"and a width of {_ASPECTS[0]:g} to {_ASPECTS[1]:g} times the height, for example (256, 512)"
        )


def _lay_out(dice: Dice, size: tuple[int, int]) -> tuple[Scene, tuple[Verge, Verge]]:
    """Choose camera, light and street."""
    height, width = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
    camera = Camera(
        height=dice.uniform(1.2, 2.1),
        focal=dice.uniform(0.62, 1.0) * math.sqrt(width * height * 2),
        center_x=dice.uniform(0.34, 0.66) * width,
        horizon=dice.uniform(0.34, 0.52) * height,
    )
    lane = dice.uniform(3.0, 3.8)
    lanes = dice.integer(2, 4)
    own = dice.integer(lanes // 2, lanes - 1)  # traffic keeps to the right
    left = -lane * (own + 0.5) + dice.uniform(-0.4, 0.4)
    bend = dice.uniform(-0.006, 0.006) if dice.chance(0.5) else 0.0
    street = Street(axis=0.0, curvature=bend, left=left, right=left + lane * lanes)
    shadows = np.zeros(size, np.uint8)
    scene = Scene(dice, camera, Canvas(height, width), draw_light(dice), street, shadows)
    return scene, (_draw_verge(dice, street, -1), _draw_verge(dice, street, 1))


def _draw_verge(dice: Dice, street: Street, side: int) -> Verge:
    style = dice.weighted(_FRONTAGE_STYLES)
    paved = style in ("city", "mixed") or dice.chance(0.65)
    pavement = dice.uniform(2.0, 5.0) if paved else 0.0
    strip = 0.0 if style == "city" else dice.uniform(0.5, 4.0)
    return Verge(side, pavement, strip, street.kerb(side) + side * (pavement + strip + 0.2), style)


def _painting_order(items: list[Item]) -> list[Item]:
    """Sort from far to near.

    Depth of the nearest part decides, but what stands between the camera's axis and a long vehicle, beside it, is
    painted after it.
    """
    keys = [item.near for item in items]
    for long in (item for item in items if item.far - item.near > 6):
        for position, other in enumerate(items):
            beside = long.near < other.near < long.far and other.x * long.x > 0 and abs(other.x) < abs(long.x)
            if beside:
                depth = (other.near - long.near) / (long.far - long.near)
                keys[position] = min(keys[position], long.near - 0.02 + 0.01 * depth)
    return [items[position] for position in sorted(range(len(items)), key=lambda position: -keys[position])]


def _populate(scene: Scene, verges: tuple[Verge, Verge]) -> None:
    """Put frontages, furniture, traffic and people on the list."""
    _add_train(scene, verges)
    for verge in verges:
        add_frontage(scene, verge)
        _add_furniture(scene, verge)
        _add_parked(scene, verge)
    _add_riders(scene)
    _add_traffic(scene)
    for verge in verges:
        _add_people(scene, verge)


def _depth(dice: Dice, near: float, far: float) -> float:
    """Draw a depth; log-uniform, so that near and far objects are about equally common in the picture."""
    return math.exp(dice.uniform(math.log(near), math.log(far)))


def _stand(
    scene: Scene,
    place: tuple[float, float],
    paint: Callable[[Frame], object],
    radius: float,
    yaw: float = 0.0,
    size: float = 1.0,
    mirror: int = 1,
) -> None:
    """Add an upright object at street position ``place`` = (s, z) with its shadow; ``radius`` is that of its foot."""
    s, z = place
    x = scene.street.x(s, z)
    corners = np.array(((-radius, -0.12), (radius, -0.12), (radius, 0.12), (-radius, 0.12))) + np.array((x, z))
    if not scene.sees(x, z, 4.0) or not scene.claim(corners):
        return

    def paint_it() -> None:
        plane = Frame(scene, x, z, yaw, size, mirror)
        paint(plane)
        plane.draw()

    scene.add(z, z, x, paint_it)
    scene.shade_ground(corners, 1.7 if radius > 0.1 else 4.0, contact=radius > 0.1)


def _add_furniture(scene: Scene, verge: Verge) -> None:
    """Line the kerb with lamps, signals, signs, posts, trees and clutter."""
    dice, side = scene.dice, verge.side
    line = scene.street.kerb(side) + side * dice.uniform(0.4, 0.8)
    if dice.chance(0.75):
        _add_lamps(scene, line, -side)
    for chance, draw in ((0.3, draw_traffic_light), (0.44, draw_traffic_sign)):
        for _ in range(3):
            if dice.chance(chance):
                place = (line, _depth(dice, 7, 45))
                _stand(scene, place, functools.partial(draw, dice=dice), 0.07, mirror=-side)
    _add_posts(scene, line)
    if dice.chance(0.3):
        place = (verge.line - side * 0.7, _depth(dice, 8, 30))
        _stand(scene, place, lambda frame: draw_clutter(frame, dice), 0.4)
    if dice.chance(0.4) and verge.pavement + verge.strip > 2:
        start, gap = dice.uniform(8, 16), dice.uniform(7, 16)
        for step in range(dice.integer(1, 7)):
            z = start + gap * step
            add_plant(scene, scene.street.x(line + side * 0.9, z), z)


def _add_lamps(scene: Scene, s: float, inward: int) -> None:
    dice, lit = scene.dice, scene.light.lamps
    z, gap = dice.uniform(6, 20), dice.uniform(14, 30)
    while z < 110:
        _stand(scene, (s, z), lambda frame: draw_street_lamp(frame, dice, lit), 0.09, mirror=inward)
        z += gap


def _add_posts(scene: Scene, s: float) -> None:
    """Add a row of bollards, a tall pole, both or none."""
    dice = scene.dice
    color, tall = dice.tone(dice.pick(METAL)), dice.uniform(3, 8)
    if dice.chance(0.3):
        start = dice.uniform(6, 20)
        for step in range(dice.integer(3, 9)):
            _stand(scene, (s, start + 1.8 * step), lambda frame: draw_bollard(frame, color), 0.09)
    if dice.chance(0.3):
        _stand(scene, (s, _depth(dice, 7, 40)), lambda frame: draw_pole(frame, tall, 0.14, color), 0.07)


def _add_parked(scene: Scene, verge: Verge) -> None:
    """Park cars, and sometimes a lorry, along the kerb; lean bicycles and motorcycles on the pavement."""
    dice, street, side = scene.dice, scene.street, verge.side
    if dice.chance(0.45):
        z, s = dice.uniform(7, 25), street.kerb(side) - side * 1.0
        for _ in range(dice.integer(1, 6)):
            away = side > 0 or dice.chance(0.2)
            if dice.chance(0.86):
                _add_vehicle(scene, "car", s, z, away)
                z += dice.uniform(5.0, 8.0)
            else:
                _add_vehicle(scene, "truck", s - side * 0.3, z + 3.5, away)
                z += 11.0
    for chance, draw in ((0.38, draw_bicycle), (0.3, draw_motorcycle)):
        if verge.pavement and dice.chance(chance):
            z, s = _depth(dice, 6, 22), street.kerb(side) + side * dice.uniform(0.5, verge.pavement)
            for step in range(dice.integer(1, 3)):
                yaw, mirror = dice.uniform(-0.5, 0.5), dice.sign()
                painter = functools.partial(draw, dice=dice)
                _stand(scene, (s, z + 0.8 * step), painter, 0.8, yaw=yaw, mirror=mirror)


def _add_people(scene: Scene, verge: Verge) -> None:
    dice, side = scene.dice, verge.side
    width = verge.pavement + verge.strip
    busy = 1.0 if verge.style in ("city", "mixed") else 0.45
    if width > 0 and dice.chance(0.8 * busy):
        for _ in range(dice.integer(1, 6)):
            z, s = _depth(dice, 5.5, 38), scene.street.kerb(side) + side * dice.uniform(0.3, max(width - 0.3, 0.4))
            _add_person(scene, s, z)
    if dice.chance(0.2):
        _add_person(scene, dice.uniform(scene.street.left, scene.street.right), _depth(dice, 9, 35))


def _add_person(scene: Scene, s: float, z: float) -> None:
    dice = scene.dice
    for neighbour in range(2 if dice.chance(0.3) else 1):
        size = dice.uniform(0.92, 1.08) if dice.chance(0.85) else dice.uniform(0.6, 0.8)
        _stand(
            scene, (s + 0.6 * neighbour, z), lambda frame: draw_person(frame, dice), 0.25, size=size, mirror=dice.sign()
        )


def _add_riders(scene: Scene) -> None:
    dice, street = scene.dice, scene.street
    for _ in range(2):
        if not dice.chance(0.4):
            continue
        z, side, motor = _depth(dice, 6, 24), dice.sign(), dice.chance(0.5)
        if dice.chance(0.5):
            s = street.kerb(side) - side * dice.uniform(0.6, 1.6)
            paint = functools.partial(draw_rider_lengthwise, dice=dice, motor=motor, away=side > 0)
            _stand(scene, (s, z), paint, 0.3)
        else:
            s, yaw = dice.uniform(street.left + 0.5, street.right - 0.5), dice.uniform(-0.7, 0.7)
            _stand(
                scene, (s, z), functools.partial(draw_rider, dice=dice, motor=motor), 0.9, yaw=yaw, mirror=dice.sign()
            )


def _add_vehicle(scene: Scene, kind: str, s: float, z: float, away: bool, turn: float = 0.0) -> None:
    """Add a vehicle whose middle is at street position (s, z)."""
    dice, lamps = scene.dice, scene.light.lamps
    draws: dict[str, Callable[[Pose, Dice, bool], object]] = {"car": draw_car, "truck": draw_truck, "bus": draw_bus}
    length, width, height = {"car": (4.4, 1.8, 1.4), "truck": (8.0, 2.4, 3.3), "bus": (10.5, 2.5, 3.0)}[kind]
    heading = scene.street.heading(z) + turn + (0.0 if away else math.pi)
    pose = Pose(scene, scene.street.x(s, z), z, heading)
    reach = abs(math.cos(heading)) * length / 2
    if not scene.sees(pose.x, z + reach, 3.0 + abs(math.sin(heading)) * length / 2):
        return
    if not scene.claim(pose.footprint(length + 0.8, width)):
        return
    inner = pose.x - math.copysign(width / 2, pose.x)

    def paint_it() -> None:
        draws[kind](pose, dice, lamps)
        pose.strokes.draw()

    scene.add(z - reach, z + reach, inner, paint_it)
    scene.shade_ground(pose.footprint(length, width), height)


def _add_traffic(scene: Scene) -> None:
    """Put vehicles on the lanes; those left of the axis of the road come towards the camera."""
    dice, street = scene.dice, scene.street
    lanes = max(2, round((street.right - street.left) / 3.4))
    width = (street.right - street.left) / lanes
    for lane in range(lanes):
        s, away = street.left + (lane + 0.5) * width, lane * 2 >= lanes
        z = dice.uniform(9, 50) if abs(s) < width / 2 else dice.uniform(5.5, 40)
        while z < 90 and dice.chance(0.7):
            kind = dice.weighted({"car": 0.68, "truck": 0.12, "bus": 0.2})
            length = {"car": 4.4, "truck": 8.0, "bus": 11.0}[kind]
            _add_vehicle(scene, kind, s + dice.uniform(-0.25, 0.25), z + length / 2, away)
            z += length + _depth(dice, 3, 40)
    if dice.chance(0.18):
        kind = dice.weighted({"car": 0.7, "truck": 0.15, "bus": 0.15})
        turn = dice.sign() * dice.uniform(1.2, 1.57)
        _add_vehicle(scene, kind, dice.uniform(-4, 4), dice.uniform(12, 35), True, turn)


def _add_train(scene: Scene, verges: tuple[Verge, Verge]) -> None:
    """Run a tram in the left half of the road or on its own ballast beside it."""
    dice, street = scene.dice, scene.street
    if not dice.chance(0.3):
        return
    verge = verges[dice.integer(0, 1)]
    ballast = verge.pavement + verge.strip > 4.0 and dice.chance(0.6)
    s = street.kerb(verge.side) + verge.side * 1.9 if ballast else street.left + 1.7
    draw_tracks(scene, s, ballast)
    if dice.chance(0.1):
        return
    length, near, lamps = dice.pick((9.0, 18.0, 27.0)), dice.uniform(6, 30), scene.light.lamps
    z = near + length / 2
    heading = scene.street.heading(z) + (math.pi if dice.chance(0.6) else 0.0)
    pose = Pose(scene, street.x(s, z), z, heading)
    scene.claim(pose.footprint(length, 2.6))
    inner = pose.x - math.copysign(1.3, pose.x)

    def paint_it() -> None:
        draw_train(pose, dice, lamps, length)
        pose.strokes.draw()

    scene.add(near, near + length, inner, paint_it)
    scene.shade_ground(pose.footprint(length, 2.6), 3.3)


class ScenesDataset(Source):
    """Map-style view of a range of scenes.

    Args:
        num_samples: number of scenes.
        start: index of the first scene; disjoint ranges never share a scene.
        seed: seed of the data set.
        size: (height, width) of the pictures in pixels.

    Raises:
        DataError: if num_samples is below 1, or start, seed or size are out of range.
    """

    def __init__(self, num_samples: int, start: int = 0, seed: int = 0, size: tuple[int, int] = (256, 512)) -> None:
        if num_samples < 1:
            raise DataError(f"num_samples must be at least 1, got {num_samples}")
        self.num_samples, self.start, self.seed = num_samples, start, seed
        self.size = (int(size[0]), int(size[1]))
        _check(start, seed, self.size)

    def __len__(self) -> int:
        return self.num_samples

    def _scene_index(self, index: int) -> int:
        if not 0 <= index < self.num_samples:
            raise IndexError(f"index {index} is out of range: the data set has {self.num_samples} scenes")
        return self.start + index

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return RGB picture (H, W, 3) uint8 and train ids (H, W) uint8 (255 = void) of a sample."""
        return draw_scene(self._scene_index(index), self.seed, self.size)

    def name(self, index: int) -> str:
        """Return a unique name, the one :func:`write_scenes` gives the files: ``scenes/scenes_<scene>_000019``."""
        return f"scenes/scenes_{self._scene_index(index):06d}_000019"

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.load(index)


def write_scenes(
    out: Path, num_train: int = 200, num_val: int = 50, seed: int = 0, size: tuple[int, int] = (256, 512)
) -> None:
    """Write scenes to disk in the official Cityscapes layout.

    Files are ``leftImg8bit/<split>/scenes/scenes_<scene>_000019_leftImg8bit.png`` and
    ``gtFine/<split>/scenes/scenes_<scene>_000019_gtFine_labelIds.png`` with the official label ids; void is 0
    ("unlabeled"). The training scenes come first, the validation scenes follow them.

    Args:
        out: folder to create; it may exist if it is empty.
        num_train: number of training scenes.
        num_val: number of validation scenes.
        seed: seed of the data set.
        size: (height, width) in pixels.

    Raises:
        DataError: if the folder is not empty or cannot be written, or an argument is out of range.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder; nothing was written: choose a new folder for the scenes")
    train = ScenesDataset(num_train, 0, seed, size)
    val = ScenesDataset(num_val, num_train, seed, size)
    for split, dataset in (("train", train), ("val", val)):
        _write_split(out, split, dataset)


def _write_split(out: Path, split: str, dataset: ScenesDataset) -> None:
    to_id = np.zeros(256, np.uint8)
    for train_id, official in CITYSCAPES_TRAIN_ID_TO_ID.items():
        to_id[train_id] = official
    images, labels = out / "leftImg8bit" / split / "scenes", out / "gtFine" / split / "scenes"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for index in range(len(dataset)):
        image, mask = dataset.load(index)
        stem = f"scenes_{dataset.start + index:06d}_000019"
        _write_png(images / f"{stem}_leftImg8bit.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        _write_png(labels / f"{stem}_gtFine_labelIds.png", to_id[mask])


def _write_png(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):
        raise DataError(f"{path} could not be written: check free space and permissions")
