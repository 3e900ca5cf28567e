"""A zoo of photos, each made here, written in every format, read back by exiftool and Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from frameswap import UnreadableFile
from frameswap.photo import PHOTO_SUFFIXES, describe_losses, is_photo, open_photo, write_photo
from frameswap.photo_metadata import read_metadata
from frameswap.provenance import Edit
from frameswap.video import VideoReader
from other_readers import call, photo_tags
from PIL import Image, ImageCms

EDIT = Edit("x", "composite")
METADATA_SUFFIXES = (".png", ".jpg", ".webp", ".tiff", ".avif")


def picture(height: int = 61, width: int = 80) -> np.ndarray:
    """(H, W, 3) uint8 RGB: smooth, and different in every corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [columns * 255 // width, rows * 255 // height, (rows + columns) % 90 + 60]
    return np.stack(planes, axis=-1).astype(np.uint8)


def with_alpha() -> np.ndarray:
    alpha = np.full((61, 80), 255, np.uint8)
    alpha[:, :20] = 128
    alpha[:10] = 64
    return np.dstack([picture(), alpha])


@cache
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 6) -> bytes:
    """An EXIF block with a camera, a time, a place and a thumbnail of the original."""
    small = io.BytesIO()
    Image.fromarray(picture(12, 16)).save(small, "jpeg")
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x8298] = orientation, "A maker", "(c) somebody"
    block.get_ifd(0x8769).update({0x829A: 0.01, 0x9003: "2026:01:02 03:04:05"})
    block.get_ifd(0x8825).update({1: "N", 2: (47.0, 30.0, 0.0)})
    return block.tobytes()


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **{"icc_profile": profile(), "exif": exif(), "dpi": (300, 300), **options})
    return path


RGB = Image.fromarray(picture())
RGBA = Image.fromarray(with_alpha())
CASES: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "420.jpg": (RGB, {"quality": 70, "subsampling": "4:2:0"}),
    "422.jpg": (RGB, {"quality": 85, "subsampling": "4:2:2"}),
    "444.jpg": (RGB, {"quality": 95, "subsampling": "4:4:4"}),
    "progressive.jpg": (RGB, {"quality": 80, "progressive": True}),
    "rgb.png": (RGB, {}),
    "alpha.png": (RGBA, {}),
    "lossless.webp": (RGB, {"lossless": True}),
    "lossy.webp": (RGB, {"quality": 80}),
    "alpha.webp": (RGBA, {"lossless": True, "exact": True}),
    "plain.tiff": (RGB, {}),
    "alpha.tiff": (RGBA, {}),
    "rgb.avif": (RGB, {"quality": 90}),
    "alpha.avif": (RGBA, {"quality": 90}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_photo_keeps_its_profile_exif_and_resolution_in_every_format(
    tmp_path: Path, name: str
) -> None:
    image, options = CASES[name]
    path = save(tmp_path / name, image, **options)
    photo = open_photo(path)
    # EXIF's 6: the camera was turned, so that the stored 80 x 61 are shown as 61 x 80.
    assert photo.image.shape == (80, 61, 3)
    upright = np.rot90(picture(), -1)[..., ::-1].astype(int)
    # The lossy ones come within a few grey levels.
    assert np.abs(photo.image - upright).mean() < 3
    assert (photo.alpha is not None) == (image.mode == "RGBA")
    for suffix in METADATA_SUFFIXES:
        output = tmp_path / f"out{suffix}"
        write_photo(
            output, photo.image, edit=EDIT, force=True, alpha=photo.alpha, metadata=photo.metadata
        )
        check_output(output, photo.metadata.dpi, alpha=photo.alpha)


def check_output(
    path: Path, dpi: tuple[float, float] | None, *, alpha: np.ndarray | None
) -> None:
    tags = photo_tags(path)
    assert tags["IFD0:Make"] == "A maker"
    assert tags["IFD0:Copyright"] == "(c) somebody"
    assert tags["ExifIFD:ExposureTime"] == pytest.approx(0.01)
    assert tags["ExifIFD:DateTimeOriginal"] == "2026:01:02 03:04:05"
    assert tags["GPS:GPSLatitudeRef"] == "N"
    assert tags.get("IFD0:Orientation", 1) == 1
    assert not [tag for tag in tags if tag.startswith("IFD1:")]
    assert tags["ICC_Profile:ProfileDescription"] == "sRGB built-in"
    assert "composite" in tags["XMP-iptcExt:DigitalSourceType"]
    assert not [tag for tag in tags if tag.startswith("ExifTool:") and "Version" not in tag]
    with Image.open(path) as opened:
        opened.load()
        assert opened.size == (61, 80)
        assert opened.info["icc_profile"] == profile()
        if dpi is not None and path.suffix in (".png", ".jpg", ".tiff"):
            assert opened.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        if alpha is not None and path.suffix != ".jpg":
            found = np.asarray(opened.getchannel("A"), int)
            # AVIF's alpha is lossy at this quality.
            assert np.abs(found - alpha).max() <= (8 if path.suffix == ".avif" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".avif"])
def test_a_photo_is_upright_whichever_way_it_is_stored(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = save(tmp_path / f"in{suffix}", RGBA if suffix != ".jpg" else RGB,
                exif=exif(orientation), quality=95)  # fmt: skip
    photo = open_photo(path)
    block = Image.Exif()
    block[0x0112] = orientation
    from PIL import ImageOps

    shown = RGB.copy()
    shown.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(shown))[..., ::-1].astype(int)
    assert photo.image.shape == expected.shape
    assert np.abs(photo.image - expected).mean() < 3
    if suffix in (".png", ".tiff"):
        alpha = Image.fromarray(with_alpha()[..., 3])
        alpha.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(photo.alpha, np.asarray(ImageOps.exif_transpose(alpha)))


@pytest.mark.parametrize(("quality", "subsampling", "name"), [
    (70, "4:2:0", "2 2"), (85, "4:2:2", "2 1"), (92, "4:4:4", "1 1"), (30, "4:2:0", "2 2"),
])  # fmt: skip
def test_a_jpeg_keeps_its_quality_and_its_sampling(
    tmp_path: Path, quality: int, subsampling: str, name: str
) -> None:
    path = save(tmp_path / "in.jpg", RGB, quality=quality, subsampling=subsampling)
    photo = open_photo(path)
    output = tmp_path / "out.jpg"
    write_photo(output, photo.image, edit=EDIT, force=False, metadata=photo.metadata)
    assert photo_tags(output)["File:YCbCrSubSampling"] == name
    with Image.open(path) as before, Image.open(output) as after:
        # Pillow and OpenCV scale the same tables.
        assert after.quantization[0] == before.quantization[0]


PLAIN: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "grey.jpg": (lambda: encode("L", "jpeg"), ()),
    "cmyk.jpg": (lambda: encode("CMYK", "jpeg", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 120),
                 ("the colour profile of",)),
    "palette.png": (lambda: encode("P", "png"), ()),
    "grey.png": (lambda: encode("L", "png"), ()),
    "one_bit.png": (lambda: encode("1", "png"), ()),
    "deep.png": (lambda: deep(".png"), ("more than 8 bits",)),
    "deep.tiff": (lambda: deep(".tiff"), ("more than 8 bits",)),
    "lzw.tiff": (lambda: encode("RGB", "tiff", compression="tiff_lzw"), ()),
    "deflate.tiff": (lambda: encode("RGBA", "tiff", compression="tiff_deflate"), ()),
    "plain.bmp": (lambda: encode("RGB", "bmp"), ()),
    "plain.ppm": (lambda: encode("RGB", "ppm"), ()),
    "broken_exif.jpg": (lambda: encode("RGB", "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
                        ("EXIF data of",)),
    "broken_profile.png": (lambda: encode("RGB", "png", icc_profile=b"short"),
                           ("the colour profile of",)),
}  # fmt: skip


def encode(mode: str, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    RGB.convert(mode).save(file, form, **options)
    return file.getvalue()


def deep(suffix: str) -> bytes:
    return cv2.imencode(suffix, picture()[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


@pytest.mark.parametrize("name", PLAIN)
def test_other_photos_are_read_and_what_is_lost_is_said(tmp_path: Path, name: str) -> None:
    content, notes = PLAIN[name]
    path = tmp_path / name
    path.write_bytes(content())
    photo = open_photo(path)
    assert photo.image.shape == (61, 80, 3)
    said = describe_losses(photo, tmp_path / "out.png")
    assert len(said) == len(notes), said
    assert all(part in note for part, note in zip(notes, said, strict=True))
    for suffix in PHOTO_SUFFIXES:
        output = tmp_path / f"out{suffix}"
        write_photo(output, photo.image, edit=EDIT, force=True, metadata=photo.metadata)
        written = cv2.imread(str(output)).astype(int)
        # JPEG's and AVIF's losses, on the dither of a palette too.
        assert np.abs(written - photo.image).mean() < (16 if suffix in (".jpg", ".jpeg", ".avif")
                                                       else 0.01)  # fmt: skip


def test_what_a_bitmap_cannot_hold_is_said(tmp_path: Path) -> None:
    photo = open_photo(save(tmp_path / "in.png", RGBA))
    said = describe_losses(photo, tmp_path / "out.bmp")
    assert said == [
        "in.png has transparency: .bmp cannot hold it; .png, .webp, .tif, .tiff, .avif can",
        "a .bmp cannot say that it was edited, nor hold in.png's colour profile and EXIF data",
    ]
    output = tmp_path / "out.bmp"
    write_photo(output, photo.image, edit=EDIT, force=False, metadata=photo.metadata)
    assert photo_tags(output)["File:PixelsPerMeterX"] == 11811


def test_the_small_picture_of_the_original_is_gone(tmp_path: Path) -> None:
    small = tmp_path / "small.jpg"
    Image.fromarray(picture(12, 16)).save(small)
    path = save(tmp_path / "in.jpg", RGB)
    call("exiftool", "-q", "-overwrite_original", f"-ThumbnailImage<={small}", path)
    assert "IFD1:ThumbnailOffset" in photo_tags(path)
    photo = open_photo(path)
    write_photo(tmp_path / "out.jpg", photo.image, edit=EDIT, force=False, metadata=photo.metadata)
    assert not [tag for tag in photo_tags(tmp_path / "out.jpg") if "Thumbnail" in tag]
    assert small.read_bytes()[20:200] not in (tmp_path / "out.jpg").read_bytes()


def test_the_colour_tags_of_a_png_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    RGB.save(path)
    call("exiftool", "-q", "-overwrite_original", "-PNG:Gamma=1.8", path)
    photo = open_photo(path)
    write_photo(tmp_path / "out.png", photo.image, edit=EDIT, force=False, metadata=photo.metadata)
    kept = [kind for kind, _ in read_metadata((tmp_path / "out.png").read_bytes(), name="o")
            .png_colours]  # fmt: skip
    assert kept == [kind for kind, _ in photo.metadata.png_colours]
    if kept:
        assert "kept in .png only" in describe_losses(photo, tmp_path / "out.jpg")[0]


@pytest.mark.parametrize(("name", "form"), [
    ("in.webp", "webp"), ("in.png", "png"), ("in.avif", "avif"),
])  # fmt: skip
def test_pictures_that_move_are_videos(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / name
    others = [Image.fromarray(np.roll(picture(), step, axis=1)) for step in (5, 10)]
    RGB.save(path, form, save_all=True, append_images=others, duration=100, lossless=True)
    assert not is_photo(path)
    with VideoReader(path) as reader:
        times = [frame.pts * reader.time_base for frame in reader.frames()]
    assert times == [0, Fraction(1, 10), Fraction(2, 10)]
    still = tmp_path / f"still_{name}"
    RGB.save(still, form)
    assert is_photo(still)


def test_a_tiff_of_several_pages_says_that_the_first_is_swapped(tmp_path: Path) -> None:
    path = tmp_path / "pages.tiff"
    RGB.save(path, save_all=True, append_images=[RGB])
    said = describe_losses(open_photo(path), tmp_path / "out.png")
    assert said == ["pages.tiff holds more than one picture: the first is swapped"]


def flip(content: bytes, seed: int, count: int) -> bytes:
    """Flip bits of a file, from a seed."""
    changed = bytearray(content)
    for place in np.random.default_rng(seed).integers(0, len(content), count):
        changed[place] ^= 1 << (seed % 8)
    return bytes(changed)


@pytest.mark.parametrize("name", ["420.jpg", "alpha.png", "alpha.webp", "plain.tiff", "rgb.avif"])
def test_a_damaged_photo_is_a_picture_or_a_sentence(tmp_path: Path, name: str) -> None:
    image, options = CASES[name]
    content = save(tmp_path / name, image, **options).read_bytes()
    outcomes = set()
    for seed in range(100):
        path = tmp_path / f"flipped_{name}"
        path.write_bytes(flip(content, seed, 1 + seed % 10))
        try:
            photo = open_photo(path)
            describe_losses(photo, tmp_path / "out.png")
            write_photo(
                tmp_path / "out.tiff", photo.image, edit=EDIT, force=True, alpha=photo.alpha,
                metadata=photo.metadata,
            )  # fmt: skip
            outcomes.add("picture")
        except UnreadableFile:
            outcomes.add("sentence")
    assert "picture" in outcomes
