"""Light of the street scenes: sky, surface texture, cast shadows, colour cast, haze, blur and sensor noise."""

import functools
import math

import cv2
import numpy as np

from gscnn_lightning.data.scenes.canvas import LABEL, SUPERSAMPLE, Color, Dice, Light, Scene, mix

_TILE = 512
# Relative strength of surface texture by train id; what is missing has 0.04.
_ROUGHNESS = {
    "road": 0.07, "sidewalk": 0.07, "building": 0.045, "wall": 0.08, "fence": 0.05, "vegetation": 0.05,
    "terrain": 0.24, "sky": 0.0, "car": 0.02, "bus": 0.02, "train": 0.02, "truck": 0.03,
    "traffic light": 0.02, "traffic sign": 0.02,
}  # fmt: skip
_GROUND = ("road", "sidewalk", "terrain")

_WEATHER: dict[str, float] = {"day": 0.42, "overcast": 0.24, "golden": 0.14, "dusk": 0.13, "fog": 0.07}


def draw_light(dice: Dice) -> Light:
    """Choose weather and time of day."""
    kind = dice.weighted(_WEATHER)
    zenith, horizon, gains, sun, visibility = {
        "day": ((92, 148, 212), (200, 218, 232), (1.04, 1.01, 0.96), 1.0, 260.0),
        "overcast": ((160, 166, 174), (205, 208, 210), (0.94, 0.95, 0.97), 0.0, 170.0),
        "golden": ((110, 140, 185), (245, 205, 150), (1.1, 0.97, 0.8), 0.85, 190.0),
        "dusk": ((92, 98, 146), (232, 172, 150), (0.7, 0.68, 0.8), 0.0, 180.0),
        "fog": ((188, 192, 195), (202, 205, 206), (0.95, 0.96, 0.97), 0.0, 55.0),
    }[kind]
    angle, length = dice.uniform(0, 2 * math.pi), dice.uniform(0.4, 1.1) if kind == "day" else dice.uniform(1.2, 2.2)
    exposure = dice.uniform(0.84, 1.12)
    return Light(
        kind=kind,
        gains=tuple(gain * exposure * dice.uniform(0.96, 1.04) for gain in gains),  # type: ignore[arg-type]
        sun=sun * dice.uniform(0.7, 1.0),
        direction=(length * math.cos(angle), length * math.sin(angle)),
        haze=mix(horizon, (200, 205, 210), 0.3),
        visibility=visibility * dice.uniform(0.8, 1.3),
        lamps=kind in ("dusk", "fog") or dice.chance(0.1),
        sky=(dice.tone(zenith, 14), dice.tone(horizon, 10)),
        clouds={"day": dice.uniform(0.0, 0.9), "golden": 0.5, "dusk": 0.5}.get(kind, 0.25),
    )


@functools.lru_cache(maxsize=1)
def noise_tiles() -> dict[str, np.ndarray]:
    """Return textures of period 512, (1024, 1024) float32, mean 0, deviation about 1: clouds, rough, grain, grass."""
    rng = np.random.default_rng(2020)
    tiles = {
        "clouds": _spectral_noise(rng, 2.2),
        "rough": _spectral_noise(rng, 0.9),
        "grain": _spectral_noise(rng, 0.0),
        "grass": 0.6 * _spectral_noise(rng, 0.4) + 0.6 * _spectral_noise(rng, 1.6),
    }
    return {name: np.tile(tile, (2, 2)) for name, tile in tiles.items()}  # windows are then plain slices


def _spectral_noise(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Make periodic noise whose amplitude falls as frequency ** -slope."""
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(_TILE, _TILE))) * frequency**-slope
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(_TILE, _TILE))
    return (noise / noise.std()).astype(np.float32)


def _window(tile: np.ndarray, dice: Dice, height: int, width: int) -> np.ndarray:
    """Cut a window from a random place of a periodic tile."""
    top, left = dice.integer(0, _TILE - 1), dice.integer(0, _TILE - 1)
    if max(height, width) <= _TILE:
        return tile[top : top + height, left : left + width]
    rows, columns = (np.arange(height) + top) % _TILE, (np.arange(width) + left) % _TILE
    return tile[:_TILE, :_TILE].take(rows, axis=0).take(columns, axis=1)


def draw_sky(scene: Scene) -> None:
    """Fill the canvas down to the horizon with a gradient and clouds."""
    light, dice, canvas = scene.light, scene.dice, scene.canvas
    rows = min(canvas.height, math.ceil(scene.camera.horizon) + 2)
    height, width = 64, 128
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    zenith, horizon = (np.asarray(color, np.float32) for color in light.sky)
    sky: np.ndarray = zenith + (horizon - zenith) * ramp**1.3
    clouds = _window(noise_tiles()["clouds"], dice, height * 4, width)[::4]
    cover = np.clip((clouds + light.clouds * 2 - 1.0) * 0.9, 0, 1)[..., None] * min(1.0, light.clouds * 1.2)
    bright = mix((240, 240, 241), light.sky[1], 0.0 if light.kind == "day" else 0.6)
    sky = sky * (1 - cover) + np.asarray(bright, np.float32) * cover
    words = np.full((height, width, 4), LABEL["sky"], np.uint8)
    words[..., :3] = sky
    cv2.resize(words, (canvas.width, rows), dst=canvas.pixels[:rows])


def develop(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Turn the finished canvas into picture and labels.

    Args:
        scene: with everything drawn.

    Returns:
        RGB (H, W, 3) uint8 and train ids (H, W) uint8, 255 = void.
    """
    canvas, dice, light = scene.canvas, scene.dice, scene.light
    height, width = canvas.height // SUPERSAMPLE, canvas.width // SUPERSAMPLE
    labels = np.ascontiguousarray(canvas.pixels[::SUPERSAMPLE, ::SUPERSAMPLE, 3])
    pixels = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    image = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    gain = _texture(scene, labels)
    shadows = cv2.GaussianBlur(scene.shadows, (0, 0), 0.8 * height / 256).astype(np.float32)
    gain *= 1 - shadows * _by_label(labels, dict.fromkeys(_GROUND, 1 / 255.0), 0.0)
    gain *= _exposure(dice, light, height, width)
    image = cv2.multiply(image, cv2.merge([gain * channel for channel in light.gains]), dtype=cv2.CV_8U)
    sigma = dice.uniform(0.25, 0.75) * max(height / 256, 0.6)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    return _add_noise(image, dice, dice.uniform(0.8, 3.6) * (1.5 if light.kind == "dusk" else 1.0)), labels


def _by_label(labels: np.ndarray, values: dict[str, float], default: float) -> np.ndarray:
    """Look up a number for every pixel's class, (H, W) float32; void and classes without one get ``default``."""
    table = np.full(256, default, np.float32)
    for name, value in values.items():
        table[LABEL[name]] = value
    return cv2.LUT(labels, table)


def _texture(scene: Scene, labels: np.ndarray) -> np.ndarray:
    """Brightness factor of the surfaces: ground texture lies in perspective, the rest faces the camera."""
    height, width = labels.shape
    dice, tiles = scene.dice, noise_tiles()
    relief = _window(tiles["rough"], dice, height, width).copy()
    top = max(0, math.ceil(scene.camera.horizon / SUPERSAMPLE) + 1)
    if top < height:
        on_ground = _by_label(labels[top:], dict.fromkeys(_GROUND, 1.0), 0.0) > 0
        np.copyto(relief[top:], _ground_relief(scene, top, labels), where=on_ground)
    return 1 + relief * _by_label(labels, _ROUGHNESS, 0.04)


def _ground_relief(scene: Scene, top: int, labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape
    camera, tiles = scene.camera, noise_tiles()
    depth = camera.focal * camera.height / ((np.arange(top, height) + 0.5) * SUPERSAMPLE - camera.horizon)
    across = ((np.arange(width) + 0.5) * SUPERSAMPLE - camera.center_x)[None] * (depth / camera.focal)[:, None]
    shift = scene.dice.integer(0, _TILE - 1)
    columns = (across * 24).astype(np.int32) + shift & _TILE - 1
    rows = (depth * 10).astype(np.int32) + shift & _TILE - 1
    cells = rows[:, None] * (2 * _TILE) + columns
    relief = tiles["rough"].ravel().take(cells)
    grass = labels[top:] == LABEL["terrain"]
    np.copyto(relief, tiles["grass"].ravel().take(cells), where=grass)
    return relief * np.minimum(1.0, 14.0 / depth).astype(np.float32)[:, None]


def _exposure(dice: Dice, light: Light, height: int, width: int) -> np.ndarray:
    """Slow change of brightness over the picture: vignette, and cloud shadows on sunny days."""
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    falloff = 1 - dice.uniform(0.02, 0.14) * (columns**2 + rows**2)
    return falloff + dice.uniform(-0.06, 0.06) * columns


def _add_noise(image: np.ndarray, dice: Dice, strength: float) -> np.ndarray:
    height, width = image.shape[:2]
    grain = _window(noise_tiles()["grain"], dice, height, width) * strength
    color = (
        cv2.resize(_window(noise_tiles()["grain"], dice, height // 2 + 1, width // 2 + 1), (width, height))
        * strength
        * 0.5
    )
    noise = cv2.merge([grain + color, grain, grain - color])
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def tint_of_window(dice: Dice, light: Light) -> Color:
    """Colour of a window pane: dark, reflecting the sky, or lit."""
    if light.lamps and dice.chance(0.4):
        return dice.tone((250, 205, 120), 15)
    return mix(dice.tone((48, 56, 66), 14), light.sky[1], dice.uniform(0.0, 0.5))
