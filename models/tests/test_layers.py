"""The shared blocks against loops."""

import numpy as np
import pytest
import reference
import torch
from cases import made, random

from vitlet_models import layers


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(7, 4, 3), (3, 2, 1), (4, 4, 0)])
def test_patch_embed(kernel, stride, pad):
    module, w = made(layers.PatchEmbed(3, 6, kernel, stride, pad))
    image = random(1, 3, 13, 10)
    tokens, height, width = module(image)
    expected, *size = reference.patch_embed(image[0].numpy(), w, stride, pad)
    assert [height, width] == size
    np.testing.assert_allclose(tokens[0].detach(), expected, atol=1e-10)


def test_mlp():
    module, w = made(layers.Mlp(6, 10))
    x = random(1, 5, 6)
    np.testing.assert_allclose(module(x)[0].detach(), reference.mlp(x[0].numpy(), w), atol=1e-10)


def test_conv_mlp():
    module, w = made(layers.ConvMlp(6, 10))
    x = random(1, 12, 6)
    np.testing.assert_allclose(module(x, 3, 4)[0].detach(), reference.conv_mlp(x[0].numpy(), w, 3, 4), atol=1e-10)


def test_conv_mlp_with_relu():
    """Zero in front of the depthwise convolution leaves its bias."""
    module, w = made(layers.ConvMlp(6, 10, relu=True))
    with torch.no_grad():
        module.fc1.weight.zero_()
        module.fc1.bias.fill_(-1.0)
    expected = reference.linear(reference.gelu(np.tile(w["dwconv.dwconv.bias"], (12, 1))), w / "fc2")
    np.testing.assert_allclose(module(random(1, 12, 6), 3, 4)[0].detach(), expected, atol=1e-10)


def test_attention():
    heads, dim = 2, 3
    q, kv = random(1, 4, heads * dim), random(1, 5, 2 * heads * dim)
    parts = layers.split_heads(kv, 2, heads)
    got = layers.merge_heads(layers.attend(layers.to_heads(q, heads), parts[0], parts[1], dim**-0.5))
    k, v = np.split(kv[0].numpy(), 2, axis=1)
    np.testing.assert_allclose(got[0], reference.attention(q[0].numpy(), k, v, heads), atol=1e-10)
