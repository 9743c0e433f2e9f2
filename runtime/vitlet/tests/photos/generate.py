"""Writes the JPEG files of the tests in src/photo.rs. Made with Pillow 11.3.0; run it in this folder.

All show the same 24x16 picture: red top left, green top right, blue bottom left, white bottom right, so that every
orientation is told apart. orientation-N.jpg is stored so that EXIF orientation N shows it upright.
"""

import pathlib

from PIL import Image

HERE = pathlib.Path(__file__).parent
ORIENTATION = 0x0112

# What undoes each orientation when the picture is shown, hence the inverse is applied before it is stored.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture():
    image = Image.new("RGB", (24, 16), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 12, 8))
    image.paste((0, 255, 0), (12, 0, 24, 8))
    image.paste((0, 0, 255), (0, 8, 12, 16))
    return image


def main():
    save = {"quality": 95, "subsampling": 0}
    for orientation, transpose in STORED.items():
        image = picture() if transpose is None else picture().transpose(transpose)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image.save(HERE / f"orientation-{orientation}.jpg", exif=exif, **save)
    picture().save(HERE / "progressive.jpg", progressive=True, **save)
    picture().save(HERE / "subsampled.jpg", quality=95, subsampling=2)
    picture().convert("L").save(HERE / "grey.jpg", quality=95)
    picture().convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff damaged"
    picture().save(HERE / "damaged-exif.jpg", exif=exif, **save)
    for name in ("orientation-1", "progressive"):
        whole = (HERE / f"{name}.jpg").read_bytes()
        (HERE / f"truncated-{name}.jpg").write_bytes(whole[: len(whole) - 40])


if __name__ == "__main__":
    main()
