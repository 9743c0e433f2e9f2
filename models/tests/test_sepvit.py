"""SepViT's blocks, and a small network of them, against loops (reference.py) in f64."""

import numpy as np
import pytest
import reference
import torch
from cases import made, random
from reference import Weights

from vitlet_models import registry, sepvit
from vitlet_models.layers import InputSizeError

SMALL = sepvit.Config(channels=(8, 12), heads=(2, 3), windows=((2, 4), (2, 2)), mlp_ratio=2, side=16)


def pixel(side, window, index, inner):
    """Raster index of pixel `inner` of window `index`."""
    grid = side // window
    y = index // grid * window + inner // window
    x = index % grid * window + inner % window
    return y * side + x


def separable_attention(x, w, heads, side, window):
    """Spec sepvit §2.3 and §2.4: from the raster tokens before norm1 to the attention's output, in raster order."""
    count, area, channels = (side // window) ** 2, window * window, x.shape[1]
    rows = [[x[pixel(side, window, index, inner)] for inner in range(area)] for index in range(count)]
    if count > 1:
        for index in range(count):
            rows[index].insert(0, w["win_tokens"][0, index, 0])
    attention = w / "attn"
    within = []
    for window_rows in rows:
        z = reference.layer_norm(np.array(window_rows), w / "norm1", 1e-6)
        q, k, v = np.split(reference.linear(z, attention / "DSA_qkv"), 3, axis=1)
        within.append(reference.attention(q, k, v, heads) + z)
    merged = np.zeros_like(x)
    if count == 1:
        merged[:] = within[0]
    else:
        mixed = between(within, attention, heads)
        for index in range(count):
            for inner in range(area):
                merged[pixel(side, window, index, inner)] = mixed[index, inner]
    assert merged.shape == (side * side, channels)
    return reference.linear(merged, attention / "proj")


def between(within, w, heads):
    """Windows × pixels × channels: pixel p of a window is a mix of the pixels p of all windows, and itself."""
    count, area, channels = len(within), len(within[0]) - 1, within[0].shape[1]
    tokens = reference.layer_norm(np.array([rows[0] for rows in within]), w / "win_tokens_norm", 1e-5)
    q, k = np.split(reference.linear(reference.gelu(tokens), w / "PSA_qk"), 2, axis=1)
    dim = channels // heads
    mixed = np.zeros((count, area, channels))
    for index in range(count):
        for head in range(heads):
            mine = slice(head * dim, (head + 1) * dim)
            share = reference.softmax([np.sum(q[index, mine] * k[other, mine]) * dim**-0.5 for other in range(count)])
            for p in range(area):
                for other in range(count):
                    mixed[index, p, mine] += share[other] * within[other][1 + p, mine]
        for p in range(area):
            mixed[index, p] += within[index][1 + p]
    return mixed


def block(x, w, heads, side, window):
    x = x + separable_attention(x, w, heads, side, window)
    return x + reference.mlp(reference.layer_norm(x, w / "norm2", 1e-6), w / "mlp")


def position_encoding(x, w, side):
    image = reference.to_map(x, side, side)
    return x + reference.to_tokens(reference.conv(image, w["proj.0.weight"], w["proj.0.bias"], 1, 1))


@pytest.mark.parametrize(("side", "window"), [(4, 2), (6, 2), (6, 3), (4, 4), (3, 3)])
def test_block(side, window):
    module, w = made(sepvit.Block(6, 2, 3, side, window))
    assert hasattr(module, "win_tokens") == (side > window)
    x = random(1, side * side, 6)
    np.testing.assert_allclose(module(x)[0].detach(), block(x[0].numpy(), w, 2, side, window), atol=1e-10)


def test_a_map_smaller_than_its_only_window():
    """Zeros at the bottom and the right before the norm; they act as keys and values, then go (spec §6)."""
    module, w = made(sepvit.Block(6, 2, 3, 4, 4))
    module.attn.resize(3)
    x = random(2, 9, 6)
    for got, image in zip(module(x), x.numpy(), strict=True):
        padded = np.zeros((4, 4, 6))
        padded[:3, :3] = image.reshape(3, 3, 6)
        attention = separable_attention(padded.reshape(16, 6), w, 2, 4, 4).reshape(4, 4, 6)[:3, :3]
        expected = image + attention.reshape(9, 6)
        expected += reference.mlp(reference.layer_norm(expected, w / "norm2", 1e-6), w / "mlp")
        np.testing.assert_allclose(got.detach(), expected, atol=1e-10)


@pytest.mark.parametrize("side", [2, 4])
def test_fewer_windows_take_the_mean_of_tokens(side):
    module, w = made(sepvit.Block(6, 2, 3, 8, 2))
    module.attn.resize(side)
    x = random(2, side * side, 6)
    grid, own = side // 2, w["win_tokens"].reshape(4, 4, 6)
    step = 4 // grid
    means = [own[y : y + step, x : x + step].mean(axis=(0, 1)) for y in range(0, 4, step) for x in range(0, 4, step)]
    w.state["win_tokens"] = np.array(means).reshape(1, grid * grid, 1, 6)
    for got, image in zip(module(x), x.numpy(), strict=True):
        expected = block_with_tokens(image, w, side)
        np.testing.assert_allclose(got.detach(), expected, atol=1e-10)


def block_with_tokens(x, w, side):
    """A block of window 2 whose attention is between windows even if there is one only."""
    z = separable_attention(x, w, 2, side, 2) if side > 2 else single_window(x, w)
    x = x + z
    return x + reference.mlp(reference.layer_norm(x, w / "norm2", 1e-6), w / "mlp")


def single_window(x, w):
    """Window token and pointwise attention with one window: it mixes with itself alone."""
    attention = w / "attn"
    z = reference.layer_norm(np.vstack([w["win_tokens"][0, 0], x]), w / "norm1", 1e-6)
    q, k, v = np.split(reference.linear(z, attention / "DSA_qkv"), 3, axis=1)
    mixed = between([reference.attention(q, k, v, 2) + z], attention, 2)
    return reference.linear(mixed[0], attention / "proj")


@pytest.mark.parametrize("size", [224, 112])
def test_training_sizes_share_the_parameters(size):
    model = registry.create("sepvit_lite", 10)
    before = {key: (value.shape, value.data_ptr()) for key, value in model.state_dict().items()}
    model.resize(size)
    assert {key: (value.shape, value.data_ptr()) for key, value in model.state_dict().items()} == before
    with torch.no_grad():
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_there_and_back():
    model = registry.create("sepvit_lite", 10)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(image)
        model.resize(112)
        model.resize(224)
        assert torch.equal(model(image), before)


def test_images_do_not_mix():
    module, w = made(sepvit.Block(6, 2, 3, 4, 2))
    x = random(3, 16, 6)
    for got, image in zip(module(x), x, strict=True):
        np.testing.assert_allclose(got.detach(), block(image.numpy(), w, 2, 4, 2), atol=1e-10)


def test_position_encoding():
    module, w = made(sepvit.PositionEncoding(6))
    x = random(1, 16, 6)
    np.testing.assert_allclose(module(x, 4, 4)[0].detach(), position_encoding(x[0].numpy(), w, 4), atol=1e-10)


def test_network():
    module, w = made(sepvit.SepVit(SMALL, classes=5, input_size=(16, 16)))
    image = random(1, 3, 16, 16)
    x, _, _ = reference.patch_embed(image[0].numpy(), w / "patch_embeds.0", 4, 3)
    x = position_encoding(block(x, w / "blocks.0.0", 2, 4, 2), w / "pos_block.0", 4)
    x = block(x, w / "blocks.0.1", 2, 4, 4)
    x, _, _ = reference.patch_embed(reference.to_map(x, 4, 4), w / "patch_embeds.1", 2, 1)
    x = position_encoding(block(x, w / "blocks.1.0", 3, 2, 2), w / "pos_block.1", 2)
    x = block(x, w / "blocks.1.1", 3, 2, 2)
    mean = reference.layer_norm(x, w / "norm", 1e-6).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(module(image).detach(), reference.linear(mean, w / "head"), atol=1e-10)


def test_window_tokens_start_from_zero():
    """spec sepvit §2.3; and there are as many as the table of §1 says."""
    with torch.no_grad():
        model = registry.create("sepvit_lite")
    counts = [[getattr(block, "win_tokens", torch.zeros(1, 0)).shape[1] for block in stage] for stage in model.blocks]
    assert counts == [[64], [16, 4], [4, 0] * 3, [0, 0]]
    assert not model.blocks[0][0].win_tokens.any()
    assert Weights.of(model)["blocks.1.1.win_tokens"].shape == (1, 4, 1, 64)


@pytest.mark.parametrize("side", [64, 96, 192, 448])
def test_other_training_sizes(side):
    with pytest.raises(InputSizeError, match=f"input {side}: SepViT is trained at 112 or 224"):
        registry.create("sepvit_lite").resize(side)


@pytest.mark.parametrize("size", [(192, 192), (448, 448), (224, 192)])
def test_only_its_own_size(size):
    with pytest.raises(InputSizeError, match="SepViT runs at 224x224 only"):
        registry.create("sepvit_lite", input_size=size)
