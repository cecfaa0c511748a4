"""What becomes of each kind of picture, in data sets and in prediction alike."""

import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.data import made

from gscnn_lightning.data import FolderDataModule
from gscnn_lightning.data.check import check_data
from gscnn_lightning.data.pictures import look, read_map, read_picture
from gscnn_lightning.errors import DataError

WIDTH, HEIGHT = 48, 32


def photo(seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


RGB = photo()
GREY = np.array(Image.fromarray(RGB).convert("L"))
PALETTE = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
BLACK_WHITE = Image.fromarray(RGB).convert("1")


def pillow(image, form, **kwargs):
    file = io.BytesIO()
    image.save(file, form, **kwargs)
    return file.getvalue()


def opencv(array, suffix):
    return cv2.imencode(suffix, array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


def three(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def image(array, mode=None):
    return Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)


OTHER = image(RGB).rotate(180)
ALPHA = np.dstack([RGB, np.full((HEIGHT, WIDTH), 90, np.uint8)])
PAGES = {"save_all": True, "append_images": [OTHER]}
DEEP = "reduced from 16 to 8 bits"
OPAQUE = "read without transparency"
FIRST = "read without what comes after the first"

# Content of a file by its name, what is expected, how exactly, and what is said about it.
KINDS = {
    "rgb.png": (pillow(image(RGB), "PNG"), RGB, 0, []),
    "rgb.jpg": (pillow(image(RGB), "JPEG", quality=95), RGB, 4, []),
    "rgb.webp": (pillow(image(RGB), "WEBP", lossless=True), RGB, 0, []),
    "rgb.tif": (pillow(image(RGB), "TIFF"), RGB, 0, []),
    "rgb.ppm": (pillow(image(RGB), "PPM"), RGB, 0, []),
    "ycbcr.tif": (pillow(image(RGB, "YCbCr"), "TIFF"), RGB, 2, []),
    "grey.png": (pillow(image(GREY), "PNG"), three(GREY), 0, []),
    "palette.png": (pillow(PALETTE, "PNG"), np.array(PALETTE.convert("RGB")), 0, []),
    "palette.tif": (pillow(PALETTE, "TIFF"), np.array(PALETTE.convert("RGB")), 0, []),
    "palette.bmp": (pillow(PALETTE, "BMP"), np.array(PALETTE.convert("RGB")), 0, []),
    "bits.png": (pillow(BLACK_WHITE, "PNG"), three(BLACK_WHITE.convert("L")), 0, []),
    "bits.tif": (pillow(BLACK_WHITE, "TIFF", compression="group4"), three(BLACK_WHITE.convert("L")), 0, []),
    "alpha.png": (pillow(image(ALPHA), "PNG"), RGB, 0, [OPAQUE]),
    "alpha.tif": (pillow(image(ALPHA), "TIFF"), RGB, 0, [OPAQUE]),
    "alpha.webp": (pillow(image(ALPHA), "WEBP", lossless=True, exact=True), RGB, 0, [OPAQUE]),
    "grey_alpha.png": (pillow(image(ALPHA, "LA"), "PNG"), three(GREY), 0, [OPAQUE]),
    "palette_alpha.png": (pillow(PALETTE, "PNG", transparency=3), np.array(PALETTE.convert("RGB")), 0, [OPAQUE]),
    "cmyk.jpg": (pillow(image(RGB, "CMYK"), "JPEG", quality=95), RGB, 3, ["converted from CMYK"]),
    "cmyk.tif": (pillow(image(RGB, "CMYK"), "TIFF"), RGB, 0, ["converted from CMYK"]),
    "animation.png": (pillow(image(RGB), "PNG", **PAGES), RGB, 0, [FIRST]),
    "animation.webp": (pillow(image(RGB), "WEBP", lossless=True, **PAGES), RGB, 0, [FIRST]),
    "pages.tif": (pillow(image(RGB), "TIFF", **PAGES), RGB, 0, [FIRST]),
    "several.jpg": (pillow(image(RGB), "MPO", quality=95, **PAGES), RGB, 4, []),
    "ten.png": (opencv(RGB.astype(np.uint16) * 4, ".png"), RGB, 0, [DEEP]),
    "twelve.png": (opencv(RGB.astype(np.uint16) * 16, ".png"), RGB, 0, [DEEP]),
    "twelve.tif": (opencv(RGB.astype(np.uint16) * 16, ".tif"), RGB, 0, [DEEP]),
    "twelve_grey.tif": (opencv(GREY.astype(np.uint16) * 16, ".tif"), three(GREY), 0, [DEEP]),
    "fourteen.png": (opencv(RGB.astype(np.uint16) * 64, ".png"), RGB, 0, [DEEP]),
    "sixteen.png": (opencv(RGB.astype(np.uint16) * 257, ".png"), RGB, 0, [DEEP]),
    "sixteen.tif": (opencv(RGB.astype(np.uint16) * 257, ".tif"), RGB, 0, [DEEP]),
    "sixteen.ppm": (opencv(RGB.astype(np.uint16) * 257, ".ppm"), RGB, 0, [DEEP]),
    "eight_of_sixteen.png": (opencv(RGB.astype(np.uint16), ".png"), RGB, 0, [DEEP]),
    "white_is_4095.ppm": (
        b"P6\n48 32\n4095\n" + (RGB.astype(int) * 4095 // 255).astype(">u2").tobytes(),
        RGB,
        1,
        ["stretched from the largest value"],
    ),
    "white_is_100.ppm": (
        b"P6 # by hand\n48 32\n100\n" + (RGB.astype(int) * 100 // 255).astype(np.uint8).tobytes(),
        RGB,
        3,
        ["stretched from the largest value"],
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_becomes_of_each_kind(name, tmp_path):
    content, expected, off, told = KINDS[name]
    path = tmp_path / name
    path.write_bytes(content)
    picture = read_picture(path)
    assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    difference = np.abs(picture.astype(int) - expected)
    assert difference.mean() <= off
    header = look(path)
    assert header.size == header.stored == (WIDTH, HEIGHT)
    assert [kind[: len(words)] for kind, words in itertools.zip_longest(header.converted, told)] == told


# Content of a file by its name, and what keeps it from being read.
REFUSED = {
    "grey_float.tif": (opencv(GREY.astype(np.float32) / 255, ".tif"), "has floating-point pixels.*convert it"),
    "float.tif": (opencv(RGB.astype(np.float32) / 255, ".tif"), "has pixels of type float32: .*convert it"),
    "double.tif": (opencv(RGB.astype(np.float64) / 255, ".tif"), "has pixels of type float64: .*convert it"),
    "thirty-two.tif": (pillow(image(GREY, "I"), "TIFF"), "has pixels of 32 bits or with a sign.*convert it"),
    "lab.tif": (pillow(Image.merge("LAB", image(RGB).split()), "TIFF"), "has colours of CIE Lab: .*convert it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_kinds_that_nobody_can_convert_are_refused_everywhere(name, tmp_path):
    content, words = REFUSED[name]
    made.folder(tmp_path)
    path = tmp_path / "images/train" / name
    path.write_bytes(content)
    made.save(path.parents[2] / f"masks/train/{path.stem}.png", made.raw_mask((HEIGHT, WIDTH)))
    with pytest.raises(DataError, match=f"{name} {words}"):
        read_picture(path)
    data = FolderDataModule(tmp_path, "classes.yaml", num_workers=0)
    (report,) = check_data(data, ["train"])
    with pytest.raises(DataError) as error:
        data.setup("fit")
    assert report.problems == [str(error.value)]
    assert f"{name} " in report.problems[0]
    assert "\n" not in report.problems[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.png", KINDS["rgb.png"][0][:-200], r"is truncated after \d+ bytes: copy it again"),
        ("cut.jpg", KINDS["rgb.jpg"][0][:-200], r"is truncated after \d+ bytes: copy it again"),
        ("junk.jpg", b"junk", "cannot be decoded as an image: replace the file"),
        ("empty.png", b"", "cannot be decoded as an image: replace the file"),
    ],
)
def test_unreadable_pictures_are_named(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} {words}"):
        read_picture(tmp_path / name)
    with pytest.raises(DataError, match=r"cannot read .*none\.png: No such file"):
        read_picture(tmp_path / "none.png")


def tagged(suffix, orientation, array=RGB):
    """A picture that is to be shown as `array`, stored as its tag says."""
    if suffix == ".tif":
        return pillow(image(stored(array, orientation)), "TIFF", tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[0x112] = orientation
    kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[suffix]
    how = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}[kind]
    return pillow(image(stored(array, orientation)), kind, exif=exif, **how)


def stored(array, orientation):
    inverse = Image.Exif()
    inverse[0x112] = {6: 8, 8: 6}.get(orientation, orientation)
    turned = image(array)
    turned.getexif().update(inverse)
    return np.array(ImageOps.exif_transpose(turned))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_pictures_are_turned_as_their_tag_says(suffix, orientation, tmp_path):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(tagged(suffix, orientation))
    picture = read_picture(path)
    assert picture.shape == RGB.shape
    assert np.abs(picture.astype(int) - RGB).mean() <= (4 if suffix == ".jpg" else 0)
    header = look(path)
    assert (header.size, header.orientation) == ((WIDTH, HEIGHT), orientation)
    assert header.converted == (("turned as the orientation tag says",) if orientation > 1 else ())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_tags_are_no_tags(tmp_path):
    (tmp_path / "p.png").write_bytes(pillow(image(RGB), "PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff"))
    assert np.array_equal(read_picture(tmp_path / "p.png"), RGB)
    (tmp_path / "q.png").write_bytes(tagged(".png", 9))
    assert np.array_equal(read_picture(tmp_path / "q.png"), RGB)


def camera_folder(root, orientation, mask_size):
    """Two splits of pictures with a tag, which are 16 pixels wide and 12 high when shown."""
    made.folder(root)
    for path in [*root.glob("images/*/*")]:
        path.unlink()
        array = made.picture(int(path.stem[1:]) + 10 * len(path.parent.name))
        path.with_suffix(".png").write_bytes(tagged(".png", orientation, array))
    for path in root.glob("masks/*/*"):
        made.save(path, made.raw_mask(mask_size))
    return FolderDataModule(root, "classes.yaml", batch_size=1, num_workers=0)


def test_data_sets_turn_images_and_never_masks(tmp_path, caplog):
    caplog.set_level("INFO")
    data = camera_folder(tmp_path, 6, (12, 16))
    train, val = check_data(data, ["train", "val"])
    assert train.problems == val.problems == []
    assert train.notes[0] == "turned as the orientation tag says: 3 of 3 pictures, the first is f0"
    data.setup("fit")
    sample = data.datasets["val"][1]
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), made.picture(1 + 30))
    assert sample["mask"].shape == (12, 16)
    said = [message for message in caplog.messages if "turned as" in message]
    assert len(said) == 2, "once for each split"
    assert said[0] == (
        f"train: turned as the orientation tag says: 3 of 3 pictures, the first is {tmp_path}/images/train/f0.png"
    )


def test_masks_drawn_on_the_picture_as_it_is_stored_get_the_right_remedy(tmp_path):
    data = camera_folder(tmp_path, 6, (16, 12))
    (report,) = check_data(data, ["train"])
    with pytest.raises(DataError) as error:
        data.setup("fit")
    assert str(error.value) == report.problems[0]
    assert report.problems[0].endswith(
        "masks/train/f0.png is 12x16 pixels but its image f0.png is 16x12 when turned as its orientation tag (6) says, "
        "so the labels were drawn on the picture as it is stored: remove the tag from the image, or turn the label map "
        "likewise"
    )
    (other,) = check_data(camera_folder(tmp_path / "other", 6, (7, 7)), ["train"])
    assert "resize one of them" in other.problems[0]


def test_masks_are_never_turned(tmp_path):
    mask = made.raw_mask()
    made.folder(tmp_path)
    for path in tmp_path.glob("masks/train/*"):
        exif = Image.Exif()
        exif[0x112] = 6
        Image.fromarray(mask).save(path, exif=exif)
        assert np.array_equal(read_map(path), mask)
    data = FolderDataModule(tmp_path, "classes.yaml", batch_size=1, num_workers=0)
    assert check_data(data, ["train"])[0].problems == []
    path.unlink()
    Image.fromarray(mask).save(path.with_suffix(".tif"), tiffinfo={274: 6})
    with pytest.raises(DataError, match=rf"{path.stem}\.tif has an orientation tag \(6\), .*save it without the tag"):
        data.setup("fit")


def test_colours_of_transparent_masks_are_those_of_the_file(tmp_path):
    Image.fromarray(ALPHA).save(tmp_path / "m.tif")
    assert np.array_equal(read_map(tmp_path / "m.tif")[..., :3], RGB[..., ::-1])


def test_transparent_tiff_files_are_turned_too(tmp_path):
    (tmp_path / "p.tif").write_bytes(pillow(image(stored(ALPHA, 8)), "TIFF", tiffinfo={274: 8}))
    assert np.array_equal(read_picture(tmp_path / "p.tif"), RGB)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_masks_with_a_palette_are_indices_in_every_format(suffix, tmp_path):
    mask = Image.fromarray(made.raw_mask(), mode="P")
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    mask.save(tmp_path / f"m{suffix}")
    assert np.array_equal(read_map(tmp_path / f"m{suffix}", indices=True), made.raw_mask())


def test_masks_of_one_bit_are_for_tables_with_a_class_of_255(tmp_path):
    made.folder(tmp_path)
    for path in tmp_path.glob("masks/*/*"):
        Image.fromarray(made.raw_mask() > 0).save(path)
    with pytest.raises(DataError, match=r"f0\.png has 1 bit per pixel, whose white is the value 255, .*class table"):
        FolderDataModule(tmp_path, "classes.yaml", num_workers=0).setup("fit")
    table = made.CLASS_TABLE.replace("void: [255]", "void: []").replace("[300]", "[255]")
    (tmp_path / "classes.yaml").write_text(table)
    data = FolderDataModule(tmp_path, "classes.yaml", batch_size=1, num_workers=0)
    data.setup("fit")
    assert set(np.unique(data.datasets["train"][0]["mask"])) == {0, 2}


def _bomb(path, mode):
    """A PNG of a few bytes whose header says 200000 x 200000 pixels: grey, with a palette, or coloured."""
    made.save(path, made.raw_mask())
    depth, colors = {"L": (8, 0), "P": (8, 3), "RGB": (8, 2)}[mode]
    header = b"IHDR" + struct.pack(">IIBBBBB", 200_000, 200_000, depth, colors, 0, 0, 0)
    palette = b"PLTE" + bytes(9)
    parts = [header, *([palette] if mode == "P" else []), b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    packed = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_headers_that_promise_too_much_are_refused_before_memory_is_taken(mode, tmp_path):
    path = tmp_path / "bomb.png"
    _bomb(path, mode)
    words = r"bomb\.png has 200000x200000 pixels by its header, more than the 1073 million .*: cut it into tiles"
    for read in (read_picture, read_map, lambda file: read_map(file, indices=True)):
        with pytest.raises(DataError, match=words):
            read(path)


@pytest.mark.parametrize("place", ["images/train/f0.jpg", "masks/train/f0.png"])
def test_headers_that_promise_too_much_are_refused_in_data_sets(place, tmp_path):
    made.folder(tmp_path)
    _bomb(tmp_path / place, "L")
    with pytest.raises(DataError, match=r"f0\.(jpg|png) (has|is) 200000x200000 pixels"):
        FolderDataModule(tmp_path, "classes.yaml", num_workers=0).setup("fit")


def test_pictures_too_large_for_a_data_set_are_refused_by_both(tmp_path):
    made.folder(tmp_path)
    huge = b"P6\n20000 20000\n255\n"
    (tmp_path / "images/train/f9.ppm").write_bytes(huge)
    made.save(tmp_path / "masks/train/f9.png", made.raw_mask())
    data = FolderDataModule(tmp_path, "classes.yaml", num_workers=0)
    (report,) = check_data(data, ["train"])
    with pytest.raises(
        DataError, match=r"f9\.ppm has 20000x20000 pixels, more than the 180 million .*: cut it"
    ) as error:
        data.setup("fit")
    assert str(error.value) in report.problems


def test_depth_of_training_is_that_of_the_reader(tmp_path):
    made.folder(tmp_path)
    for path in tmp_path.glob("images/train/*.png"):
        cv2.imwrite(str(path), made.picture(31)[..., ::-1].astype(np.uint16) * 16)
    data = FolderDataModule(tmp_path, "classes.yaml", batch_size=1, num_workers=0)
    assert np.array_equal(data.source("train").load(1)[0], made.picture(31))
    (report,) = check_data(data, ["train"])
    assert report.notes[0] == (
        "reduced from 16 to 8 bits, the upper ones of the 8, 10, 12, 14 or 16 that the largest value of the picture "
        "needs: 1 of 3 pictures, the first is f1"
    )
