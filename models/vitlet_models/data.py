"""Photos for training: decoded once into files that are mapped into memory, then varied batch by batch as tensors.

A data set is a folder that holds `train` and `val`, each with a folder for every class. Photos are squashed to squares,
bilinear with antialias, as `vitlet` does by default.
"""

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
SUFFIXES = (".jpg", ".jpeg", ".png")


class DataError(ValueError):
    """A data set's folder is not as it must be."""


@dataclass(frozen=True)
class Photos:
    """One split: N×side×side×3 bytes, a label for each photo, and the classes' names."""

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple

    def __len__(self):
        return len(self.labels)

    def batch(self, indices):
        """N×3×side×side from 0 to 1, and the labels."""
        return self.pixels[indices].permute(0, 3, 1, 2).float() / 255, self.labels[indices]


def files_of(folder):
    """The split's files, class by class in alphabetical order: (file, label) pairs, and the classes' names."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the data set needs train/CLASS/*.jpg and val/CLASS/*.jpg")
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    pairs = [
        (file, label) for label, name in enumerate(classes) for file in sorted((folder / name).iterdir()) if file.suffix.lower() in SUFFIXES
    ]
    if not pairs:
        raise DataError(f"{folder}: no photos ({', '.join(SUFFIXES)}) in folders, one for each class")
    return pairs, classes


def shortest_side(folder):
    """Of all photos of a split, in pixels."""
    from PIL import Image

    sides = []
    for file, _ in files_of(folder)[0]:
        with Image.open(file) as photo:
            sides.append(min(photo.size))
    return min(sides)


def load(folder, side, cache):
    """The split in `folder`, squashed to `side` pixels; decoded in an earlier run if the folder `cache` holds it."""
    pairs, classes = files_of(folder)
    listing = "\n".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file, _ in pairs)
    name = f"{folder.parent.name}-{folder.name}-{side}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}.u8"
    path = cache / name
    shape = (len(pairs), side, side, 3)
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        decode([file for file, _ in pairs], shape, path)
    # PyTorch warns of arrays that cannot be written; mode "c" keeps changes, of which there are none, out of the file.
    pixels = torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))
    return Photos(pixels, torch.tensor([label for _, label in pairs]), classes)


def decode(files, shape, path):
    """Writes all photos' bytes into one file, which appears when it is complete."""
    from PIL import Image

    partial = path.with_name(f"{path.name}.{os.getpid()}")
    pixels = np.memmap(partial, np.uint8, "w+", shape=shape)
    for index, file in enumerate(files):
        try:
            with Image.open(file) as photo:
                pixels[index] = photo.convert("RGB").resize(shape[1:3], Image.Resampling.BILINEAR)
        except OSError as error:
            partial.unlink()
            raise DataError(f"{file}: not a photo that can be decoded: {error}") from error
    pixels.flush()
    partial.rename(path)


def normalise(images):
    """From 0 to 1 → ImageNet's mean and standard deviation taken out."""
    return (images - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(DEVIATION).reshape(1, 3, 1, 1)


@dataclass(frozen=True)
class Augmentation:
    """How training photos are varied, besides being mirrored. Zero turns a kind off."""

    # The smallest part of a photo's area that a crop may show, up to 1.
    crop: float = 0.35
    # Brightness, contrast and saturation change by up to this share.
    jitter: float = 0.3
    # The share of photos from which a rectangle is erased.
    erase: float = 0.25
    # Parameters of the beta distributions from which shares are drawn; batches take turns if both are used.
    mixup: float = 0.2
    cutmix: float = 1.0
    smoothing: float = 0.1


def uniform(generator, count, low, high):
    """`count` random numbers."""
    return low + (high - low) * torch.rand(count, generator=generator)


def crop_and_flip(images, side, smallest, generator):
    """A random part of each photo, of 3:4 to 4:3 its shape, at `side` pixels; every other one mirrored."""
    count = len(images)
    area = uniform(generator, count, smallest, 1.0)
    ratio = uniform(generator, count, -1.0, 1.0).mul(np.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2] = (1 - width) * uniform(generator, count, -1.0, 1.0)
    theta[:, 1, 2] = (1 - height) * uniform(generator, count, -1.0, 1.0)
    grid = functional.affine_grid(theta, (count, 3, side, side), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def jitter_colours(images, strength, generator):
    """Random brightness, contrast and saturation."""

    def factor():
        return uniform(generator, len(images), 1 - strength, 1 + strength).reshape(-1, 1, 1, 1)

    images = images * factor()
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor()
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * factor()).clamp(0, 1)


def rectangle(side, share, generator):
    """Rows and columns of a square that holds this share of the image's area, cut off at the edges."""
    length = side * share**0.5
    bounds = []
    for centre in uniform(generator, 2, 0.0, side).tolist():
        bounds.append(slice(max(round(centre - length / 2), 0), min(round(centre + length / 2), side)))
    return tuple(bounds)


def erase(images, share, generator):
    """Sets a square of 2 % to 20 % of the area to the mean, in this share of the photos."""
    areas = uniform(generator, len(images), 0.02, 0.2).tolist()
    for image, area, chance in zip(images, areas, uniform(generator, len(images), 0.0, 1.0).tolist(), strict=True):
        if chance < share:
            rows, columns = rectangle(images.shape[-1], area, generator)
            image[:, rows, columns] = 0
    return images


def beta(parameter, generator):
    """A draw from the symmetric beta distribution."""
    # torch.distributions takes no generator.
    return float(np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator))).beta(parameter, parameter))


def mix(images, targets, how, generator):
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899) of the batch with itself in reverse order."""
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(how, kind) > 0]
    if not kinds:
        return images, targets
    kind = kinds[int(torch.randint(len(kinds), (1,), generator=generator))]
    share = beta(getattr(how, kind), generator)
    if kind == "mixup":
        images = images.lerp(images.flip(0), 1 - share)
    else:
        rows, columns = rectangle(images.shape[-1], 1 - share, generator)
        images[:, :, rows, columns] = images[:, :, rows, columns].flip(0)
        # The rectangle was cut off at the edges.
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / images.shape[-1] ** 2
    return images, targets.lerp(targets.flip(0), 1 - share)


def augment(images, labels, classes, side, how, generator):
    """Varied, normalised images at `side` pixels, and the share of every class in each of them."""
    targets = functional.one_hot(labels, classes).float()
    targets = targets * (1 - how.smoothing) + how.smoothing / classes
    images = crop_and_flip(images, side, how.crop, generator)
    if how.jitter > 0:
        images = jitter_colours(images, how.jitter, generator)
    images = normalise(images)
    if how.erase > 0:
        images = erase(images, how.erase, generator)
    return mix(images, targets, how, generator)
