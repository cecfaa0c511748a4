"""Upright objects of the street scenes: people, two-wheelers, street furniture and plants.

Every function draws into a :class:`Frame` whose origin stands on the ground; lengths are metres.
"""

import functools
import math

import cv2
import numpy as np

from gscnn_lightning.data.scenes.canvas import (
    CIRCLE,
    LABEL,
    VOID,
    Color,
    Dice,
    Frame,
    Scene,
    make_palette,
    scale,
)

CLOTHES: tuple[Color, ...] = (
    (35, 38, 48), (60, 62, 70), (40, 55, 95), (120, 30, 35), (180, 175, 165), (205, 200, 60), (50, 95, 70),
    (150, 110, 80), (90, 60, 110), (215, 215, 220), (200, 90, 50), (70, 110, 160),
)  # fmt: skip
SKIN: tuple[Color, ...] = ((225, 180, 150), (190, 140, 110), (140, 95, 70), (95, 65, 50))
HAIR: tuple[Color, ...] = ((35, 28, 25), (80, 55, 35), (150, 115, 70), (120, 118, 115))
METAL: tuple[Color, ...] = ((95, 98, 100), (130, 132, 130), (60, 65, 68), (70, 90, 78), (150, 145, 135))
LEAVES: tuple[Color, ...] = ((70, 105, 45), (95, 120, 50), (55, 90, 55), (120, 125, 50), (150, 110, 45), (60, 80, 40))
_RUBBER: Color = (28, 28, 30)


# People


def draw_person(frame: Frame, dice: Dice) -> None:
    """Draw a pedestrian, about 1.75 m tall at frame size 1."""
    person = LABEL["person"]
    top, trousers, skin = dice.tone(dice.pick(CLOTHES)), dice.tone(dice.pick(CLOTHES)), dice.pick(SKIN)
    stride = dice.uniform(0.03, 0.3)
    sway = dice.uniform(-0.08, 0.08)
    for side, shade in ((-1.0, 0.75), (1.0, 1.0)):
        foot = side * stride
        frame.bar(((side * 0.07, 0.88), (foot * 0.7 + 0.03, 0.46), (foot, 0.05)), 0.15, scale(trousers, shade), person)
        frame.box(foot - 0.07, 0.0, foot + 0.16, 0.08, (30, 28, 28), person)
    frame.bar(((-0.2, 1.4), (-0.25 - stride * 0.4, 1.12), (-0.2 - stride * 0.7, 0.88)), 0.11, scale(top, 0.75), person)
    _draw_torso(frame, dice, top, trousers)
    frame.bar(((0.2, 1.4), (0.24 + stride * 0.4, 1.12), (0.22 + stride * 0.8, 0.9)), 0.11, scale(top, 0.9), person)
    frame.disc(0.22 + stride * 0.8, 0.86, 0.055, skin, person)
    _draw_head(frame, dice, sway, 1.62, skin, person)
    if dice.chance(0.3):
        bag = dice.tone(dice.pick(CLOTHES))
        side = dice.sign() * 0.24
        frame.box(side - 0.12, 0.85, side + 0.12, 1.2, bag, person)


def _draw_torso(frame: Frame, dice: Dice, top: Color, trousers: Color) -> None:
    person = LABEL["person"]
    kind = dice.weighted({"jacket": 0.55, "coat": 0.25, "skirt": 0.2})
    hem = {"jacket": 0.82, "coat": 0.55, "skirt": 0.5}[kind]
    if kind == "skirt":
        frame.polygon(((-0.15, 1.0), (0.15, 1.0), (0.27, hem), (-0.27, hem)), scale(trousers, 1.1), person)
        hem = 0.95
    outline = ((-0.21, 1.46), (-0.08, 1.52), (0.08, 1.52), (0.21, 1.46), (0.2, 1.15), (0.21, hem), (-0.21, hem))
    frame.polygon((*outline, (-0.2, 1.15)), top, person)
    frame.polygon(((-0.21, 1.46), (-0.1, 1.5), (-0.08, hem), (-0.21, hem), (-0.2, 1.15)), scale(top, 0.8), person)


def _draw_head(frame: Frame, dice: Dice, x: float, y: float, skin: Color, label: int) -> None:
    frame.box(x - 0.05, y - 0.16, x + 0.05, y, scale(skin, 0.8), label)
    frame.disc(x, y, 0.11, skin, label, flat=1.2)
    cap = dice.pick(HAIR) if dice.chance(0.75) else dice.tone(dice.pick(CLOTHES))
    frame.polygon(CIRCLE[:9] * (0.125, 0.14) + (x, y + 0.02), cap, label)


# Two-wheelers


def _draw_wheel(frame: Frame, dice: Dice, x: float, radius: float, tyre: float, label: int) -> None:
    angles = math.pi * (np.arange(5) + dice.random()) / 5
    tips = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    frame.bars(np.stack([tips, -tips], axis=1) + np.array((x, radius)), 0.012, (150, 150, 150), label)
    frame.ring(x, radius, radius - tyre / 2, tyre, _RUBBER, label)
    frame.disc(x, radius, 0.06, (110, 110, 112), label)


def draw_bicycle(frame: Frame, dice: Dice) -> None:
    """Draw a bicycle from the side, 1.75 m long, looking along +x."""
    label = LABEL["bicycle"]
    paint = dice.tone(dice.pick(CLOTHES), 30)
    for x in (-0.53, 0.53):
        _draw_wheel(frame, dice, x, 0.35, 0.06, label)
    frame.polygon(CIRCLE[1:8] * 0.4 + (-0.53, 0.35), scale(paint, 0.7), label)  # mudguard and coat guard
    frame.bar(((-0.53, 0.35), (-0.05, 0.32), (0.36, 0.82), (-0.2, 0.8), (-0.05, 0.32)), 0.06, paint, label)
    frame.bar(((-0.53, 0.35), (-0.2, 0.8), (-0.24, 0.98)), 0.05, paint, label)
    frame.bar(((0.53, 0.35), (0.34, 0.95), (0.3, 1.05), (0.18, 1.06)), 0.05, scale(paint, 0.8), label)
    frame.polygon(((-0.38, 1.02), (-0.1, 0.99), (-0.1, 0.94), (-0.38, 0.95)), (25, 24, 24), label)
    frame.disc(-0.05, 0.32, 0.1, (70, 70, 72), label)
    if dice.chance(0.4):
        frame.box(-0.75, 0.72, -0.35, 0.78, (60, 60, 60), label)
        frame.box(-0.72, 0.45, -0.4, 0.74, dice.tone(dice.pick(CLOTHES)), label)
    elif dice.chance(0.4):
        frame.box(0.4, 0.82, 0.75, 1.02, (120, 100, 75), label)


def draw_motorcycle(frame: Frame, dice: Dice) -> None:
    """Draw a motorcycle or scooter from the side, 2 m long, looking along +x."""
    label = LABEL["motorcycle"]
    paint = dice.tone(dice.pick(CLOTHES), 30)
    for x in (-0.68, 0.7):
        frame.disc(x, 0.31, 0.32, _RUBBER, label)
        frame.disc(x, 0.31, 0.19, (120, 120, 124), label)
        frame.disc(x, 0.31, 0.07, (60, 60, 64), label)
    if dice.chance(0.5):
        body = ((-0.95, 0.5), (-0.9, 0.8), (-0.2, 0.78), (-0.1, 0.38), (0.3, 0.36), (0.42, 1.0), (0.55, 0.98))
        frame.polygon((*body, (0.5, 0.3), (0.3, 0.22), (-0.3, 0.22), (-0.4, 0.45)), paint, label)
    else:
        frame.polygon(((-0.5, 0.25), (0.35, 0.22), (0.4, 0.62), (-0.4, 0.66)), (70, 70, 74), label)
        frame.disc(-0.05, 0.42, 0.17, (130, 130, 134), label)
        frame.polygon(((-0.1, 0.68), (0.35, 0.62), (0.45, 0.92), (0.1, 0.96)), paint, label)
        frame.polygon(((-1.0, 0.8), (-0.6, 0.68), (-0.1, 0.66), (-0.15, 0.76), (-0.7, 0.9)), paint, label)
        frame.bar(((-0.1, 0.3), (-0.9, 0.34)), 0.11, (165, 165, 170), label)
    frame.bar(((0.7, 0.31), (0.48, 0.98), (0.3, 1.08)), 0.09, (95, 95, 100), label)
    frame.polygon(((-0.8, 0.8), (-0.05, 0.76), (-0.05, 0.84), (-0.8, 0.9)), (22, 22, 24), label)
    frame.disc(0.58, 0.88, 0.1, (240, 235, 205), label)
    frame.box(-1.0, 0.7, -0.9, 0.78, (190, 30, 25), label)


def draw_rider(frame: Frame, dice: Dice, motor: bool) -> None:
    """Draw somebody riding to the right: first the vehicle, then the rider on it."""
    rider = LABEL["rider"]
    (draw_motorcycle if motor else draw_bicycle)(frame, dice)
    top, trousers, skin = dice.tone(dice.pick(CLOTHES)), dice.tone(dice.pick(CLOTHES)), dice.pick(SKIN)
    hip, shoulder = (-0.25, 0.98 if not motor else 0.9), (0.05, 1.5 if not motor else 1.42)
    pedal = dice.uniform(0.2, 0.45)
    frame.bar((hip, (0.2, 0.85), (0.0, pedal)), 0.16, trousers, rider)
    frame.box(-0.07, pedal - 0.09, 0.16, pedal, (30, 28, 28), rider)
    lean = ((-0.4, 0.95), (-0.14, 0.9), (0.0, 1.1), (0.18, 1.46), (0.06, 1.56), (-0.1, 1.5), (-0.34, 1.2))
    frame.polygon(np.asarray(lean) + np.array((0, hip[1] - 0.98)), top, rider)
    frame.bar((shoulder, (0.25, 1.2), (0.36, 1.07)), 0.11, scale(top, 0.8), rider)
    _draw_head(frame, dice, 0.16, shoulder[1] + 0.22, skin, rider)
    if motor or dice.chance(0.5):
        helmet = dice.tone(dice.pick(CLOTHES), 40)
        frame.polygon(CIRCLE[:10] * (0.16, 0.17) + (0.15, shoulder[1] + 0.24), helmet, rider)


def draw_rider_lengthwise(frame: Frame, dice: Dice, motor: bool, away: bool) -> None:
    """Draw somebody riding towards the camera or away from it."""
    rider, label = LABEL["rider"], LABEL["motorcycle" if motor else "bicycle"]
    top, trousers, skin = dice.tone(dice.pick(CLOTHES)), dice.tone(dice.pick(CLOTHES)), dice.pick(SKIN)
    paint = dice.tone(dice.pick(CLOTHES), 30)
    width, bar_height = (0.15, 1.0) if motor else (0.07, 1.05)
    frame.box(-width / 2, 0.0, width / 2, 0.66, _RUBBER, label)
    frame.bar(((-0.34, bar_height), (0.34, bar_height)), 0.06, (60, 60, 64), label)
    if motor:
        frame.polygon(
            ((-0.22, 0.45), (0.22, 0.45), (0.26, 0.8), (0.14, 1.05), (-0.14, 1.05), (-0.26, 0.8)), paint, label
        )
    else:
        frame.box(-0.05, 0.55, 0.05, 1.0, paint, label)
        frame.bar(((-0.2, 0.32), (0.2, 0.32)), 0.06, (50, 50, 52), label)
    low = dice.uniform(0.28, 0.5)
    for side, foot in ((-1, low), (1, 0.72 - low)):
        frame.bar(((side * 0.12, 0.95), (side * 0.2, 0.7), (side * 0.15, foot)), 0.15, trousers, rider)
    frame.polygon(((-0.2, 0.88), (0.2, 0.88), (0.24, 1.45), (0.1, 1.54), (-0.1, 1.54), (-0.24, 1.45)), top, rider)
    for side in (-1, 1):
        frame.bar(((side * 0.22, 1.42), (side * 0.33, 1.2), (side * 0.32, bar_height)), 0.1, scale(top, 0.85), rider)
    _draw_head(frame, dice, 0.0, 1.68, dice.pick(HAIR) if away else skin, rider)
    if motor or dice.chance(0.5):
        frame.polygon(CIRCLE[:9] * (0.15, 0.17) + (0.0, 1.69), dice.tone(dice.pick(CLOTHES), 40), rider)
    lamp: Color = (200, 30, 25) if away else (250, 245, 215)
    frame.disc(0.0, 0.78, 0.09 if motor else 0.05, lamp, label)


# Street furniture


def draw_pole(frame: Frame, height: float, width: float, color: Color) -> None:
    """Draw an upright pole with a lit side."""
    pole = LABEL["pole"]
    frame.bar(((0.0, 0.0), (0.0, height)), width, color, pole)
    frame.box(-width * 0.9, 0.0, width * 0.9, min(0.3, height / 3), scale(color, 0.8), pole)


def draw_street_lamp(frame: Frame, dice: Dice, lit: bool) -> None:
    """Draw a lamp post, 5 to 9 m tall, with an arm along +x."""
    pole, color = LABEL["pole"], dice.tone(dice.pick(METAL))
    height, arm = dice.uniform(5.0, 9.0), dice.uniform(0.6, 2.0)
    draw_pole(frame, height, dice.uniform(0.13, 0.2), color)
    frame.bar(((0.0, height - 0.05), (arm * 0.5, height + 0.25), (arm, height + 0.3)), 0.1, color, pole)
    frame.box(arm - 0.15, height + 0.16, arm + 0.5, height + 0.34, (250, 235, 190) if lit else scale(color, 0.7), pole)


def draw_traffic_light(frame: Frame, dice: Dice) -> None:
    """Draw a signal on a post; some have a second signal on an arm over the road (along +x)."""
    color, height = dice.tone(dice.pick(METAL)), dice.uniform(2.6, 3.2)
    away, state = dice.chance(0.25), dice.integer(0, 2)
    over_road = dice.chance(0.35)
    if over_road:
        arm, top = dice.uniform(2.0, 4.0), dice.uniform(5.0, 5.8)
        draw_pole(frame, top, 0.17, color)
        frame.bar(((0.0, top), (arm, top)), 0.12, color, LABEL["pole"])
        _draw_signal_head(frame, arm, top - 0.5, state, away)
    else:
        draw_pole(frame, height + 0.3, 0.13, color)
    _draw_signal_head(frame, 0.0, height, state, away)


def _draw_signal_head(frame: Frame, x: float, y: float, state: int, away: bool) -> None:
    label = LABEL["traffic light"]
    frame.box(x - 0.22, y - 0.55, x + 0.22, y + 0.55, (24, 27, 26), label)
    if away:
        return
    lamps: tuple[Color, ...] = ((255, 50, 40), (255, 190, 40), (60, 245, 130))
    for row, lamp in enumerate(lamps):
        shade = lamp if row == state else scale(lamp, 0.22)
        frame.disc(x, y + 0.34 - 0.34 * row, 0.14, shade, label)


def draw_traffic_sign(frame: Frame, dice: Dice) -> None:
    """Draw a post with one or two signs, seen from the front or, grey, from the back."""
    height = dice.uniform(2.2, 2.9)
    draw_pole(frame, height + 0.35, 0.09, dice.tone(dice.pick(METAL)))
    away, size = dice.chance(0.12), dice.uniform(0.32, 0.48)
    _draw_plate(frame, dice, height, size, away)
    if dice.chance(0.3):
        _draw_plate(frame, dice, height - 2 * size - 0.05, size * 0.85, away)


def _draw_plate(frame: Frame, dice: Dice, y: float, r: float, away: bool) -> None:
    sign = LABEL["traffic sign"]
    kind = dice.pick(("limit", "warning", "priority", "order", "square", "stop", "direction"))
    angles = CIRCLE * r + (0.0, y)
    triangle = np.array(((-1.0, -0.75), (1.0, -0.75), (0.0, 1.0))) * r
    red, blue, white, grey = (205, 30, 40), (25, 80, 175), (240, 240, 238), (140, 142, 145)
    if kind == "limit":
        frame.polygon(angles, grey if away else red, sign)
        if not away:
            frame.disc(0.0, y, r * 0.72, white, sign)
            frame.box(-r * 0.35, y - r * 0.3, r * 0.35, y + r * 0.3, (40, 40, 42), sign)
    elif kind in ("warning", "stop"):
        flip = 1 if kind == "warning" else -1
        frame.polygon(triangle * (1, flip) + (0.0, y), grey if away else red, sign)
        frame.polygon(triangle * (0.6, 0.6 * flip) + (0.0, y), grey if away else white, sign)
    elif kind == "priority":
        diamond = np.array(((0, 1), (1, 0), (0, -1), (-1, 0)))
        frame.polygon(diamond * r + (0.0, y), grey if away else white, sign)
        frame.polygon(diamond * r * 0.7 + (0.0, y), grey if away else (245, 195, 30), sign)
    elif kind == "order":
        frame.polygon(angles, grey if away else blue, sign)
        frame.bar(((-r * 0.4, y - r * 0.4), (r * 0.4, y + r * 0.4)), r * 0.3, grey if away else white, sign)
    elif kind == "square":
        frame.box(-r, y - r, r, y + r, grey if away else blue, sign)
        frame.box(-r * 0.5, y - r * 0.6, r * 0.5, y + r * 0.6, grey if away else white, sign)
    else:
        length, board = r * 2.6, dice.pick((blue, (245, 200, 40), white, (25, 110, 70)))
        frame.box(-length, y - r, length, y + r, grey if away else board, sign)
        ink = (30, 30, 32) if sum(board) > 450 else white
        for row in (-0.4, 0.35):
            end = dice.uniform(0.1, 0.8) * length
            frame.bar(((-0.8 * length, y + row * r), (end, y + row * r)), r * 0.3, grey if away else ink, sign)


def draw_bollard(frame: Frame, color: Color) -> None:
    """Draw a knee-high post."""
    frame.box(-0.09, 0.0, 0.09, 0.95, color, LABEL["pole"])
    frame.box(-0.09, 0.7, 0.09, 0.82, (225, 222, 215), LABEL["pole"])


def draw_clutter(frame: Frame, dice: Dice) -> None:
    """Draw a bin, a bench or a box, void like Cityscapes' "static"."""
    color = dice.tone(dice.pick(CLOTHES))
    kind = dice.pick(("bin", "bench", "cabinet"))
    if kind == "bin":
        frame.box(-0.3, 0.05, 0.3, 1.0, color, VOID)
        frame.box(-0.34, 0.95, 0.34, 1.1, scale(color, 0.7), VOID)
    elif kind == "bench":
        for y in (0.45, 0.65, 0.82):
            frame.box(-0.9, y, 0.9, y + 0.11, (130, 95, 60), VOID)
        for x in (-0.75, 0.75):
            frame.box(x - 0.05, 0.0, x + 0.05, 0.8, (50, 50, 52), VOID)
    else:
        frame.box(-0.5, 0.0, 0.5, 1.3, (150, 152, 148), VOID)
        frame.box(-0.46, 0.08, 0.46, 1.22, (165, 167, 162), VOID)


# Plants


@functools.lru_cache(maxsize=1)
def foliage_sprites() -> tuple[np.ndarray, ...]:
    """Return leafy clumps, (128, 128) intp each: 0 outside, else brightness, lit from above."""
    rng = np.random.default_rng(2019)
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    return tuple(_foliage_sprite(rng, rows, columns) for _ in range(10))


def _foliage_sprite(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    shade = np.zeros(rows.shape)
    body = np.full(rows.shape, -1.0)
    for _ in range(26):
        angle, radius = rng.uniform(0, 2 * math.pi), 0.66 * math.sqrt(rng.uniform())
        x, y, size = radius * math.cos(angle), radius * math.sin(angle), rng.uniform(0.2, 0.38)
        blob = 1 - ((columns - x) ** 2 + (rows - y) ** 2) / size**2
        light = 0.45 + 0.3 * blob - 0.35 * (rows - y) / size - 0.25 * y + rng.uniform(-0.1, 0.1)
        shade = np.where(blob > np.maximum(body, 0) * 0.6, light, shade)
        body = np.maximum(body, blob)
    leaves = cv2.GaussianBlur(rng.normal(size=rows.shape), (0, 0), 1.3)
    leaves /= leaves.std()
    inside = body + 0.16 * leaves > 0.12
    holes = cv2.GaussianBlur(rng.normal(size=rows.shape), (0, 0), 4)
    inside &= holes / holes.std() > -2.2
    values = np.clip(127 * (shade + 0.16 * leaves), 1, 127)
    return np.where(inside, values, 0).astype(np.intp)


def draw_clump(scene: Scene, x: float, y: float, z: float, size: tuple[float, float], color: Color, which: int) -> None:
    """Draw a clump of leaves centred at (x, y, z), ``size`` = (width, height) in metres."""
    light, camera = scene.light, scene.camera
    left, top = camera.point(x - size[0] / 2, y + size[1] / 2, z)
    right, bottom = camera.point(x + size[0] / 2, y - size[1] / 2, z)
    dark = light.fade(scale(color, 0.38), z)
    palette = make_palette(dark, light.fade(scale(color, 1.5), z), LABEL["vegetation"])
    sprites = foliage_sprites()
    scene.canvas.stamp(sprites[which % len(sprites)], (left, top, right, bottom), palette)


def draw_tree(scene: Scene, x: float, z: float, height: float, color: Color) -> None:
    """Draw a leafy tree with trunk, boughs and a crown of overlapping clumps."""
    dice, vegetation = scene.dice, LABEL["vegetation"]
    frame = Frame(scene, x, z)
    bark = dice.tone((85, 68, 52), 14)
    crown, lean = height * dice.uniform(0.55, 0.72), dice.uniform(-0.3, 0.3)
    middle = height - crown / 2
    width = height * 0.022
    trunk = ((-width * 1.3, 0), (width * 1.3, 0), (lean + width * 0.6, middle), (lean - width * 0.6, middle))
    frame.polygon(trunk, bark, vegetation)
    for side in (-1, 1):
        frame.bar(
            ((lean * 0.5, middle * 0.75), (lean + side * crown * 0.3, middle + crown * 0.15)), width, bark, vegetation
        )
    frame.draw()
    spread = crown * dice.uniform(0.8, 1.1)
    for _ in range(dice.integer(4, 7) if z < 50 else 3):
        dx, dy = dice.uniform(-0.3, 0.3) * spread, dice.uniform(-0.25, 0.25) * crown
        size = (spread * dice.uniform(0.5, 0.8), crown * dice.uniform(0.45, 0.75))
        draw_clump(
            scene, x + lean + dx, middle + dy, z, size, scale(color, dice.uniform(0.8, 1.15)), dice.integer(0, 9)
        )


def draw_conifer(scene: Scene, x: float, z: float, height: float, color: Color) -> None:
    """Draw a fir: trunk and tiers of hanging branches."""
    dice, vegetation, frame = scene.dice, LABEL["vegetation"], Frame(scene, x, z)
    frame.box(-0.12, 0.0, 0.12, height * 0.3, (70, 55, 42), vegetation)
    tiers = 6
    for tier in range(tiers):
        low, half = height * (0.1 + 0.14 * tier), height * 0.2 * (1 - tier / (tiers + 0.5))
        top, shade = low + height * 0.28, scale(color, dice.uniform(0.5, 0.8) + 0.05 * tier)
        jags = [(half * (1 - k / 4), low + (0.05 * height if k % 2 else 0)) for k in range(9)]
        frame.polygon(((0.0, top), *jags), shade, vegetation)
    frame.draw()


def draw_bush(scene: Scene, x: float, z: float, size: float, color: Color) -> None:
    """Draw a bush of two clumps standing on the ground."""
    dice = scene.dice
    for _ in range(2):
        shift, which = dice.uniform(-0.3, 0.3) * size, dice.integer(0, 9)
        draw_clump(
            scene, x + shift, size * 0.35, z, (size * 1.3, size * 0.95), scale(color, dice.uniform(0.8, 1.1)), which
        )
