"""Dual-ViT's blocks, and a small network of them, against loops (reference.py) in f64."""

import math

import numpy as np
import pytest
import reference
import torch
from cases import made, random

from vitlet_models import dualvit, registry
from vitlet_models.layers import InputSizeError

SMALL = dualvit.Config(4, (4, 8, 6, 8), (2, 1, 2, 1), (1, 2, 2, 2), ((2, 2), (2, 2), (3, 2), (2, 2)))


def stem(image, w):
    """Spec dualvit §2.1."""
    for first, stride, pad in ((0, 2, 3), (3, 1, 1), (6, 1, 1)):
        image = reference.conv(image, w[f"conv.{first}.weight"], None, stride, pad)
        norm = w / f"conv.{first + 1}"
        for channel in range(len(image)):
            deviation = math.sqrt(norm["running_var"][channel] + 1e-5)
            image[channel] = (image[channel] - norm["running_mean"][channel]) / deviation
            image[channel] = image[channel] * norm["weight"][channel] + norm["bias"][channel]
        image = reference.relu(image)
    return reference.patch_embed(image, w, 2, 1)


def semantic_embed(s, w):
    """Spec §2.2."""
    return reference.layer_norm(reference.linear(s, w / "proj_proxy.0"), w / "proj_proxy.1", 1e-5)


def first_semantics(x, w, height, width):
    """Spec §2.3."""
    image, channels = reference.to_map(x, height, width), x.shape[1]
    rows, columns = height // 7, width // 7
    pooled = np.array(
        [
            [image[c, 7 * row : 7 * row + 7, 7 * column : 7 * column + 7].mean() for c in range(channels)]
            for row in range(rows)
            for column in range(columns)
        ]
    )
    queries = w["q"]
    if rows * columns != 64:
        queries = reference.to_tokens(reference.resize_bicubic(reference.to_map(queries, 8, 8), rows, columns))
    queries = reference.linear(reference.layer_norm(queries, w / "q_embed.0", 1e-5), w / "q_embed.1")
    k, v = np.split(reference.linear(pooled, w / "kv"), 2, axis=1)
    a = reference.attention(queries, k, v, 1)
    mean = (a + pooled).mean(axis=0, keepdims=True)
    gate = reference.linear(reference.relu(reference.linear(mean, w / "se.0")), w / "se.2")[0]
    s = np.zeros_like(a)
    for c in range(channels):
        of_attended, of_pooled = reference.softmax([gate[c], gate[channels + c]])
        s[:, c] = of_attended * a[:, c] + of_pooled * pooled[:, c]
    return reference.layer_norm(s, w / "proxy_ln", 1e-5)


def dual_block(x, s, w, heads, height, width):
    """Spec §2.4."""
    a = w / "attn"
    xn = reference.layer_norm(x, w / "norm1", 1e-6)
    qkv = reference.linear(reference.layer_norm(s, a / "qkv_proxy.0", 1e-5), a / "qkv_proxy.1")
    s = s + a["gamma1"] * reference.attention(*np.split(qkv, 3, axis=1), heads)
    q = reference.linear(reference.layer_norm(s, a / "q_proxy_ln", 1e-5), a / "q_proxy")
    k, v = np.split(reference.linear(xn, a / "kv_proxy"), 2, axis=1)
    s = s + a["gamma2"] * reference.attention(q, k, v, heads)
    hidden = reference.relu(reference.linear(reference.layer_norm(s, a / "p_ln", 1e-5), a / "mlp_proxy.0"))
    s = s + a["gamma3"] * reference.linear(hidden, a / "mlp_proxy.2")
    k, v = np.split(reference.linear(reference.layer_norm(s, a / "proxy_ln", 1e-5), a / "kv"), 2, axis=1)
    attended = reference.attention(reference.linear(xn, a / "q"), k, v, heads)
    x = x + w["gamma1"] * reference.linear(attended, a / "proj")
    normed = reference.layer_norm(x, w / "norm2", 1e-6)
    return x + w["gamma2"] * reference.conv_mlp(normed, w / "mlp", height, width), s


def merge_block(x, s, w, heads, height, width):
    """Spec §2.5; pixels and semantic tokens apart, except as keys."""
    n = np.concatenate([reference.layer_norm(part, w / "norm1", 1e-6) for part in (x, s)])
    k, v = np.split(reference.linear(n, w / "attn.kv"), 2, axis=1)
    attended = reference.attention(reference.linear(n, w / "attn.q"), k, v, heads)
    attended = w["gamma1"] * reference.linear(attended, w / "attn.proj")
    x, s = x + attended[: len(x)], s + attended[len(x) :]
    pixels = reference.conv_mlp(reference.layer_norm(x, w / "norm2", 1e-6), w / "mlp", height, width)
    hidden = reference.gelu(reference.linear(reference.layer_norm(s, w / "norm2", 1e-6), w / "mlp.fc_proxy.0"))
    return x + w["gamma2"] * pixels, s + w["gamma2"] * reference.linear(hidden, w / "mlp.fc_proxy.2")


def class_block(c, z, w, heads):
    """Spec §2.7: c is one row."""
    n = reference.layer_norm(np.concatenate([c, z]), w / "norm1", 1e-6)
    k, v = np.split(reference.linear(n, w / "attn.kv"), 2, axis=1)
    attended = reference.attention(reference.linear(n[:1], w / "attn.q"), k, v, heads)
    c = c + reference.linear(attended, w / "attn.proj")
    return c + reference.mlp(reference.layer_norm(c, w / "norm2", 1e-6), w / "mlp")


def logits(x, s, w, heads, aux):
    """Spec §2.7."""
    z = np.concatenate([x, s])
    c = class_block(z.mean(axis=0, keepdims=True), z, w / "post_network.0", heads)
    main = reference.linear(reference.layer_norm(c, w / "norm4", 1e-6), w / "head")[0]
    if not aux:
        return main
    pixels = reference.linear(reference.layer_norm(x, w / "norm4", 1e-6), w / "aux_head")
    return np.array([main[i] + 0.5 * max(pixels[:, i]) for i in range(len(main))])


def test_stem():
    module, w = made(dualvit.Stem(4, 6))
    image = random(1, 3, 14, 18)
    expected, height, width = stem(image[0].numpy(), w)
    tokens, *size = module(image)
    assert size == [height, width] == [4, 5]
    np.testing.assert_allclose(tokens[0].detach(), expected, atol=1e-10)


def test_semantic_embed():
    module, w = made(dualvit.SemanticEmbed(4, 6))
    s = random(1, 3, 4)
    np.testing.assert_allclose(module(s)[0].detach(), semantic_embed(s[0].numpy(), w), atol=1e-10)


# As many cells as queries; fewer; more; and one dimension of each. Remainders are left out.
@pytest.mark.parametrize(("height", "width"), [(56, 56), (14, 30), (63, 70), (7, 7), (62, 8)])
def test_first_semantics(height, width):
    module, w = made(dualvit.DualVit(SMALL, classes=5))
    x = random(1, height * width, 4)
    expected = first_semantics(x[0].numpy(), w, height, width)
    np.testing.assert_allclose(module.first_semantics(x, height, width)[0].detach(), expected, atol=1e-10)


def test_dual_block():
    module, w = made(dualvit.DualBlock(6, 2, 3))
    x, s = random(1, 12, 6), random(1, 5, 6) + 0.5
    expected = dual_block(x[0].numpy(), s[0].numpy(), w, 2, 3, 4)
    for got, wanted in zip(module(x, s, 3, 4), expected, strict=True):
        np.testing.assert_allclose(got[0].detach(), wanted, atol=1e-10)


def test_merge_block():
    module, w = made(dualvit.MergeBlock(6, 2, 3))
    z = random(1, 12 + 5, 6)
    expected = merge_block(z[0, :12].numpy(), z[0, 12:].numpy(), w, 2, 3, 4)
    np.testing.assert_allclose(module(z, 3, 4)[0].detach(), np.concatenate(expected), atol=1e-10)


def test_class_block():
    module, w = made(dualvit.ClassBlock(6, 2, 2))
    u = random(1, 8, 6)
    expected = class_block(u[0, :1].numpy(), u[0, 1:].numpy(), w, 2)
    np.testing.assert_allclose(module(u)[0].detach(), expected, atol=1e-10)


@pytest.mark.parametrize("aux", [True, False])
def test_heads(aux):
    module, w = made(dualvit.DualVit(SMALL, classes=5, aux_head=aux))
    z = random(1, 6 + 3, 8)
    expected = logits(z[0, :6].numpy(), z[0, 6:].numpy(), w, 2, aux)
    np.testing.assert_allclose(module.classify(z, 6)[0].detach(), expected, atol=1e-10)


@pytest.mark.parametrize("aux", [True, False])
def test_network(aux):
    module, w = made(dualvit.DualVit(SMALL, classes=5, input_size=(56, 64), aux_head=aux))
    image = random(1, 3, 56, 64)
    x, height, width = stem(image[0].numpy(), w / "patch_embed1")
    s = first_semantics(x, w, height, width)
    for stage, (depth, heads) in enumerate(zip(SMALL.depths, SMALL.heads, strict=True), start=1):
        if stage > 1:
            x, height, width = reference.patch_embed(reference.to_map(x, height, width), w / f"patch_embed{stage}", 2, 1)
            s = semantic_embed(s, w / f"proxy_embed{stage}")
        step = dual_block if stage < 3 else merge_block
        for index in range(depth):
            x, s = step(x, s, w / f"block{stage}.{index}", heads, height, width)
        if stage < 4:
            x, s = reference.layer_norm(x, w / f"norm{stage}", 1e-6), reference.layer_norm(s, w / f"norm_proxy{stage}", 1e-6)
    np.testing.assert_allclose(module(image)[0].detach(), logits(x, s, w, 2, aux), atol=1e-9)


@torch.no_grad()
def test_fixed_queries_change_nothing():
    module, _ = made(dualvit.DualVit(SMALL, classes=5, input_size=(56, 64)))
    image = random(1, 3, 56, 64)
    before = module(image)
    module.fix_queries((56, 64))
    assert module.q.shape == (4, 4)
    assert torch.equal(module(image), before)


def test_pooled_sizes():
    """spec §1: 64 semantic tokens at 224, 169 at 384."""
    assert dualvit.pooled_size((224, 224)) == (8, 8)
    assert dualvit.pooled_size((384, 384)) == (13, 13)


def test_too_small():
    with pytest.raises(InputSizeError, match="input 24x64: .*25 pixels a side or more"):
        registry.create("dualvit_s", input_size=(24, 64))
    dualvit.check_size(SMALL, (25, 25))


def test_stage_3_alternates():
    """spec §1 and quirk 2; LayerScale starts from 1e-6 (spec §2.4)."""
    with torch.device("meta"):
        model = registry.create("dualvit_s")
    assert [block.mlp.fc1.out_features // 320 for block in model.block3] == [4, 3, 4, 3, 4, 3]
    assert [block.mlp.fc1.out_features // 448 for block in model.block4] == [3, 3, 3]
    assert dualvit.layer_scale(3).tolist() == pytest.approx([1e-6] * 3)
