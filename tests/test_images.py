"""Pictures are read as a person would see them, or refused in one sentence."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image as pillow

from fitkit.errors import InputError, UsageError
from fitkit.keypoints.images import DIAGONAL_35MM, find_images, read_image

WIDTH, HEIGHT = 48, 32


def scene() -> np.ndarray:
    """Return a smooth picture in which no turn or mirror image looks like another."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 5, y * 7, 120 + (x < 10) * (y < 8) * 100], axis=-1).astype(np.uint8)


def close(pixels: np.ndarray, expected: np.ndarray, tolerance: float = 6.0) -> bool:
    return pixels.shape == expected.shape and bool(np.abs(pixels.astype(float) - expected).mean() < tolerance)


TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}
"""How a camera stores an upright scene, for each value of EXIF's orientation."""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    stored = pillow.fromarray(np.ascontiguousarray(TURNED[orientation](scene())))
    exif = pillow.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png")
    np.testing.assert_array_equal(image.pixels, scene())
    assert image.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tiff", "gif", "JPG"])
def test_formats(tmp_path, ending):
    path = tmp_path / f"photo with spaces, ünïcode.{ending}"
    pillow.fromarray(scene()).save(path)
    image = read_image(path)
    assert image.pixels.dtype == np.uint8 and image.path == path
    assert close(image.pixels, scene(), 20.0)


def test_grey_pictures_get_three_channels(tmp_path):
    pillow.fromarray(scene()).convert("L").save(tmp_path / "grey.png")
    pixels = read_image(tmp_path / "grey.png").pixels
    assert pixels.shape == (HEIGHT, WIDTH, 3) and (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("bits", [16, 12])
def test_deep_grey_pictures_keep_their_contrast(tmp_path, bits):
    grey = np.linspace(0.0, 1.0, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    pillow.fromarray((grey * (2**bits - 1)).astype(np.uint16)).save(tmp_path / "deep.png")
    assert close(read_image(tmp_path / "deep.png").pixels[..., 0], grey * 255.0, 1.0)


def test_cmyk(tmp_path):
    pillow.fromarray(scene()).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert close(read_image(tmp_path / "print.jpg").pixels, scene(), 25.0)


def test_one_bit(tmp_path):
    pillow.fromarray(scene()).convert("1").save(tmp_path / "fax.png")
    assert set(np.unique(read_image(tmp_path / "fax.png").pixels)) == {0, 255}


def test_what_is_transparent_is_white(tmp_path):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, WIDTH // 2 :] = 255
    pillow.fromarray(np.dstack([scene(), alpha])).save(tmp_path / "cut-out.png")
    pixels = read_image(tmp_path / "cut-out.png").pixels
    assert (pixels[:, : WIDTH // 2] == 255).all()
    np.testing.assert_array_equal(pixels[:, WIDTH // 2 :], scene()[:, WIDTH // 2 :])


def test_palette_with_a_transparent_colour(tmp_path):
    picture = pillow.fromarray(np.repeat(np.array([[0, 1]], np.uint8), 24, axis=1).repeat(24, axis=0)).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "icon.png", transparency=0)
    pixels = read_image(tmp_path / "icon.png").pixels
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, -1].tolist() == [200, 100, 50]


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [pillow.fromarray(np.full((HEIGHT, WIDTH), value, np.uint8)) for value in (40, 200)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "clip.gif").pixels.mean() == pytest.approx(40, abs=2)


def test_focal_length_from_its_35_mm_equivalent(tmp_path):
    exif = pillow.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    pillow.fromarray(scene()).save(tmp_path / "photo.jpg", exif=exif)
    expected = 28.0 / DIAGONAL_35MM * np.hypot(WIDTH, HEIGHT)
    assert read_image(tmp_path / "photo.jpg").focal_px == pytest.approx(expected)


def test_focal_length_from_the_sensor(tmp_path):
    exif = pillow.Exif()
    tags = exif.get_ifd(0x8769)
    tags[0x920A], tags[0xA20E], tags[0xA210] = 50.0, 100.0, 4  # 50 mm, 100 pixels per millimetre
    tags[0xA002], tags[0xA003] = 10 * WIDTH, 10 * HEIGHT  # taken ten times as large as it is kept
    pillow.fromarray(scene()).save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").focal_px == pytest.approx(500.0)


def test_no_focal_length_where_exif_is_silent_or_absurd(tmp_path):
    pillow.fromarray(scene()).save(tmp_path / "silent.jpg")
    assert read_image(tmp_path / "silent.jpg").focal_px is None
    exif = pillow.Exif()
    exif.get_ifd(0x8769)[0xA405] = 60000
    pillow.fromarray(scene()).save(tmp_path / "absurd.jpg", exif=exif)
    assert read_image(tmp_path / "absurd.jpg").focal_px is None


def png_header(width: int, height: int) -> bytes:
    """Return the beginning of a PNG file that claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


BROKEN = {
    "empty.jpg": (b"", "is empty"),
    "letter.jpg": (b"Dear Sir or Madam, " * 50, "is not a picture"),
    "header.jpg": (b"\xff\xd8\xff\xe0" + bytes(500), "damaged|cannot be read"),
    "huge.png": (png_header(60_000, 60_000), "megapixels"),
    "large.png": (png_header(20_000, 15_000), "megapixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_sentence(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_folders_are_no_pictures(tmp_path):
    with pytest.raises(InputError, match="no picture"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_too_small(tmp_path, size):
    pillow.new("RGB", size).save(tmp_path / "dot.png")
    with pytest.raises(InputError, match="too small"):
        read_image(tmp_path / "dot.png")


def truncated(folder, share: float):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    pillow.fromarray(noise).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "part.jpg").write_bytes(content[: int(len(content) * share)])
    return folder / "part.jpg"


def test_a_picture_that_lacks_little_is_read_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="cut short"):
        image = read_image(truncated(tmp_path, 0.92))
    assert image.size == (200, 200)


def test_a_picture_that_lacks_much_is_refused(tmp_path):
    with pytest.raises(InputError, match="cut short"):
        read_image(truncated(tmp_path, 0.4))


def test_reading_warns_of_nothing_else(tmp_path):
    pillow.new("1", (10_000, 9_000)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.png").size == (10_000, 9_000)


@pytest.fixture
def album(tmp_path):
    for name in ("b.jpg", "a.PNG", "c d ü.jpeg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(paths):
    return [path.name for path in paths]


def test_folders_give_their_pictures_sorted(album):
    assert names(find_images([album])) == ["a.PNG", "b.jpg", "c d ü.jpeg"]


def test_globs_and_files_keep_their_order_and_come_once(album):
    assert names(find_images([album / "c d ü.jpeg", str(album / "*.jp*g"), album])) == ["c d ü.jpeg", "b.jpg", "a.PNG"]


def test_a_file_may_have_any_ending(album):
    assert names(find_images(str(album / "notes.txt"))) == ["notes.txt"]


def test_a_file_may_look_like_a_glob(album):
    (album / "shot[1].jpg").write_bytes(b"x")
    assert names(find_images([album / "shot[1].jpg"])) == ["shot[1].jpg"]


@pytest.mark.parametrize("item", ["missing.jpg", "empty", "*.tif"])
def test_inputs_that_name_no_picture(album, item):
    with pytest.raises(UsageError, match=r"no picture|no file"):
        find_images([album / item])
