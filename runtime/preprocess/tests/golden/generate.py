"""Writes the golden images of tests/pillow.rs: what Pillow makes of synthetic frames and of photos.

Made with Pillow 11.3.0 (see PILLOW below); run `python3 generate.py` in this folder to write them again.
Pillow 13.0.0 gives the same bytes except for some frames whose height shrinks more than their width: there it makes the
vertical pass first, and rounding between the passes falls differently (the `mixed` case).
Synthetic frames come from the formula in `frame`, which tests/pillow.rs repeats, so only Pillow's output is stored. Of photos the
pixels are stored too, as Pillow decodes them: JPEG decoders differ, and this is about what comes after them.
Geometry is torchvision's, restated in `short_side` so that torchvision need not be installed.
"""

import pathlib

import numpy as np
import PIL
from PIL import Image

PILLOW = "11.3.0"

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# name, frame width and height, input width and height, short side (0: squash)
CASES = [
    ("down", 160, 120, 56, 56, 0),
    ("down-odd", 203, 157, 48, 31, 0),
    ("up", 17, 11, 40, 36, 0),
    ("same", 32, 24, 32, 24, 0),
    ("mixed", 24, 200, 64, 40, 0),
    ("crop", 160, 120, 48, 48, 56),
    ("crop-tall", 75, 131, 40, 32, 45),
    ("crop-up", 20, 13, 32, 32, 33),
    ("line", 90, 1, 24, 8, 0),
]

# name, file in models/samples, frame width and height (the photo's centre, its pixels untouched), the rest as in CASES
PHOTOS = [
    ("photo", "glass102.jpg", 160, 120, 64, 64, 0),
    ("photo-crop", "metal120.jpg", 160, 120, 48, 48, 54),
    ("photo-up", "paper13.jpg", 59, 83, 96, 100, 0),
]


def frame(width, height):
    """Gradients, stripes and noise, 8-bit arithmetic only."""
    x = np.arange(width, dtype=np.uint32)[None, :]
    y = np.arange(height, dtype=np.uint32)[:, None]
    hashed = (x * 73856093 ^ y * 19349663) * np.uint32(2654435761)
    red = x * 3 + y * 5
    green = ((x // 4 + y // 3) % 2) * 255
    blue = hashed >> 24
    planes = [np.broadcast_to(p, (height, width)) & 255 for p in (red, green, blue)]
    return np.stack(planes, axis=2).astype(np.uint8)


def short_side(image, size, width, height, resample):
    """torchvision.transforms.functional.resize(size) and center_crop on a PIL image."""
    w, h = image.size
    short, long = min(w, h), max(w, h)
    new_long = int(size * long / short)
    resized = image.resize((size, new_long) if w <= h else (new_long, size), resample)
    return centre(resized, width, height)


def centre(image, width, height):
    """torchvision.transforms.functional.center_crop((height, width)) on a PIL image."""
    top = int(round((image.height - height) / 2.0))
    left = int(round((image.width - width) / 2.0))
    return image.crop((left, top, left + width, top + height))


def main():
    assert PIL.__version__ == PILLOW, f"these goldens are Pillow {PILLOW}'s, this is {PIL.__version__}"
    folder = pathlib.Path(__file__).parent
    images = [(name, Image.fromarray(frame(w, h)), rest) for name, w, h, *rest in CASES]
    for name, file, w, h, *rest in PHOTOS:
        image = centre(Image.open(folder / "../../../../models/samples" / file).convert("RGB"), w, h)
        (folder / f"{name}-frame.rgb").write_bytes(image.tobytes())
        images.append((name, image, rest))
    for name, image, (width, height, short) in images:
        for filter_name, resample in FILTERS.items():
            if short:
                out = short_side(image, short, width, height, resample)
            else:
                out = image.resize((width, height), resample)
            (folder / f"{name}-{filter_name}.rgb").write_bytes(out.tobytes())


if __name__ == "__main__":
    main()
