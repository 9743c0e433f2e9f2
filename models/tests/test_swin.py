"""Swin: its tables and masks, and its output against timm's and torchvision's with the same weights.

The networks are compared in f64, where an epsilon shows.
"""

import pytest
import timm
import torch
import torchvision

from vitlet_models import registry, swin
from vitlet_models.checkpoints import load, randomise
from vitlet_models.layers import InputSizeError


def test_index_of_window_7():
    """spec swin §2.2."""
    index = swin.relative_position_index(7)
    assert index.shape == (49, 49)
    pairs = {(0, 0): 84, (0, 1): 83, (1, 0): 85, (0, 7): 71, (0, 48): 0, (48, 0): 168}
    assert {pair: int(index[pair]) for pair in pairs} == pairs
    assert int(index.sum()) == 201_684
    assert index.unique().tolist() == list(range(169))


def test_index_of_window_12():
    index = swin.relative_position_index(12)
    assert int(index[0, 0]) == 264
    assert index.unique().tolist() == list(range(529))


def test_index_depends_on_the_offset_only():
    """Pair by pair: (y_i − y_j + M − 1)·(2M − 1) + (x_i − x_j + M − 1)."""
    index = swin.relative_position_index(3)
    for i in range(9):
        for j in range(9):
            assert int(index[i, j]) == (i // 3 - j // 3 + 2) * 5 + (i % 3 - j % 3 + 2)


@pytest.mark.parametrize(("side", "windows", "masked", "pairs"), [(56, 64, 15, 18_240), (28, 16, 7, 8_832), (14, 4, 3, 4_128)])
def test_mask(side, windows, masked, pairs):
    """spec swin §2.3."""
    mask = swin.shift_mask(side, side, 7, 3)
    assert mask.shape == (windows, 49, 49)
    assert mask.unique().tolist() == [-100.0, 0.0]
    per_window = (mask != 0).sum(dim=(1, 2)).reshape(side // 7, side // 7)
    assert int((per_window > 0).sum()) == masked
    assert int(per_window.sum()) == pairs
    assert int(per_window[-1, -1]) == 1_776
    assert set(per_window[-1, :-1].tolist() + per_window[:-1, -1].tolist()) == {1_176}
    assert int(per_window[:-1, :-1].sum()) == 0


def test_mask_by_coordinates():
    """Two pixels of a window see each other if, before the shift, they were as far apart as they are now."""
    height, width, window, shift = 8, 12, 4, 2
    mask = swin.shift_mask(height, width, window, shift)

    def before(window_index, pixel):
        y = window_index // (width // window) * window + pixel // window
        x = window_index % (width // window) * window + pixel % window
        return (y + shift) % height, (x + shift) % width

    for index in range(mask.shape[0]):
        for i in range(window * window):
            for j in range(window * window):
                (yi, xi), (yj, xj) = before(index, i), before(index, j)
                near = yi - yj == i // window - j // window and xi - xj == i % window - j % window
                assert (float(mask[index, i, j]) == 0.0) == near


def test_windows_and_back():
    x = torch.arange(2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    windows = swin.to_windows(x, 4)
    assert windows.shape == (12, 16, 3)
    # Image 1, second row of windows, third column, pixel (2, 3) of it.
    assert windows[6 + 5, 2 * 4 + 3].tolist() == x[1, 4 + 2, 8 + 3].tolist()
    assert torch.equal(swin.from_windows(windows, 4, 8, 12), x)


def test_merging_order():
    """spec swin §2.4: (0,0), (1,0), (0,1), (1,1) of every 2×2 group."""
    merging = swin.PatchMerging(1, (2, 4))
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    got = merging(torch.arange(8.0).reshape(1, 8, 1))
    assert got.tolist() == [[[0, 4, 1, 5], [2, 6, 3, 7]]]


@pytest.mark.parametrize(
    ("name", "theirs", "size"),
    [
        ("swin_tiny_w7_224", "swin_tiny_patch4_window7_224", (224, 224)),
        # The last stage has four windows here, and its second block is shifted. At 224×448 timm would differ: it shifts
        # along the one axis that is longer than a window, the official code along neither.
        ("swin_tiny_w7_224", "swin_tiny_patch4_window7_224", (448, 448)),
        ("swin_base_w7_224", "swin_base_patch4_window7_224", (224, 224)),
        ("swin_base_w12_384", "swin_base_patch4_window12_384", (384, 384)),
    ],
)
@torch.no_grad()
def test_equals_timm(name, theirs, size):
    theirs = timm.create_model(theirs, img_size=size).double().eval()
    randomise(theirs, seed=3)
    ours = registry.create(name, input_size=size).double()
    load(ours, theirs.state_dict())
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = theirs(image)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours(image), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_equals_torchvision():
    theirs = torchvision.models.swin_t().double().eval()
    state = theirs.state_dict()
    index = state["features.1.0.attn.relative_position_index"].clone()
    assert torch.equal(index, swin.relative_position_index(7).flatten())
    randomise(theirs, seed=3)
    ours = registry.create("swin_tiny_w7_224").double()
    load(ours, theirs.state_dict())
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(256, 256), (224, 200), (112, 112), (14, 224)])
def test_sizes_that_need_padding(size):
    with pytest.raises(InputSizeError, match=f"input {size[0]}x{size[1]}: .*multiple of 224"):
        registry.create("swin_tiny_w7_224", input_size=size)


def test_the_size_is_built_in():
    with pytest.raises(InputSizeError, match="made for input"):
        registry.create("swin_tiny_w7_224")(torch.zeros(1, 3, 448, 448))


def test_a_small_map_is_one_window():
    """spec swin §2: M shrinks to the map, and nothing is shifted."""
    model = registry.create("swin_base_w12_384", input_size=(192, 192))
    last = model.layers[3].blocks
    assert [block.window for block in last] == [6, 6]
    assert [block.shift for block in last] == [0, 0]
    assert model.layers[2].blocks[1].shift == 0
    assert model.layers[1].blocks[1].shift == 6


def test_half_the_side_equals_torchvision():
    """Windows keep their size, maps are padded (spec swin §2.5): from the stage of 14×14 pixels at 224 on."""
    theirs = torchvision.models.swin_t().double().eval()
    randomise(theirs, 0)
    ours = registry.create("swin_tiny_w7_224").double()
    load(ours, theirs.state_dict())
    shapes = {name: parameter.shape for name, parameter in ours.named_parameters()}
    ours.resize(112)
    assert {name: parameter.shape for name, parameter in ours.named_parameters()} == shapes
    image = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-10)


def test_there_and_back():
    model = registry.create("swin_tiny_w7_224")
    masks = {key: value for key, value in model.state_dict().items() if key.endswith("attn_mask")}
    model.resize(112)
    model.resize(224)
    now = model.state_dict()
    assert all(torch.equal(now[key], mask) for key, mask in masks.items())
    assert sum(key.endswith("attn_mask") for key in now) == len(masks) > 0
