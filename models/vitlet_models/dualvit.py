"""Dual-ViT: a pixel path and a path of a few semantic tokens, side by side in two stages and merged in the last two.

Sources: spec dualvit (official `YehLi/ImageNetModel`, `classification/dualvit.py`, commit 0b4302e), paper arXiv
2207.04976. The official code has LayerScale, gates, query pooling and a class block that the paper's equations leave
out (spec §2.6).

LayerNorms: eps 1e-6 in blocks, stages and class block, 1e-5 everywhere else (spec quirk 1).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from vitlet_models.layers import (
    BLOCK_EPS,
    DEFAULT_EPS,
    ConvMlp,
    InputSizeError,
    Mlp,
    PatchEmbed,
    attend,
    merge_heads,
    split_heads,
    to_heads,
    to_map,
    to_tokens,
)


@dataclass(frozen=True)
class Config:
    """One variant. A tuple's item is a stage; `mlp_ratios` holds the ratio of even and of odd blocks."""

    stem: int
    channels: tuple
    depths: tuple
    heads: tuple
    mlp_ratios: tuple = ((8, 8), (8, 8), (4, 3), (3, 3))
    class_mlp_ratio: int = 2


# spec §1; 32 channels a head throughout.
CONFIGS = {
    "dualvit_s": Config(32, (64, 128, 320, 448), (3, 4, 6, 3), (2, 4, 10, 14)),
    "dualvit_b": Config(64, (64, 128, 320, 512), (3, 4, 15, 3), (2, 4, 10, 16)),
    "dualvit_l": Config(64, (96, 192, 384, 512), (3, 6, 21, 3), (3, 6, 12, 16)),
}
# Of our own, for the zoo: what trains on two cores. Half of Dual-ViT-S's channels and a third of its blocks.
REDUCED = {"dualvit_nano": Config(16, (32, 64, 160, 224), (1, 1, 2, 1), (1, 2, 5, 7))}

# Semantic queries, a square of them, and the side of the cells that pixels are pooled in (spec §2.3).
QUERY_SIDE = 8
POOL = 7
# What LayerScale starts from (spec §2.4).
LAYER_SCALE = 1e-6
# Weight of the best pixel's logits in the sum (spec §2.7).
AUX_WEIGHT = 0.5


def layer_scale(channels):
    """A factor for every channel."""
    return nn.Parameter(torch.full((channels,), LAYER_SCALE))


class Stem(nn.Module):
    """Three convolutions with batch norm and ReLU at half the size, one at a quarter, LayerNorm (spec §2.1)."""

    def __init__(self, hidden, channels):
        super().__init__()
        layers = []
        for in_channels, kernel, stride in ((3, 7, 2), (hidden, 3, 1), (hidden, 3, 1)):
            layers += [
                nn.Conv2d(in_channels, hidden, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(hidden, eps=DEFAULT_EPS),
                nn.ReLU(),
            ]
        self.conv = nn.Sequential(*layers)
        self.proj = nn.Conv2d(hidden, channels, 3, 2, 1)
        self.norm = nn.LayerNorm(channels, eps=DEFAULT_EPS)

    def forward(self, image):
        """N×3×H×W → tokens, and the height and width of their map."""
        image = self.proj(self.conv(image))
        height, width = image.shape[2:]
        return self.norm(to_tokens(image)), height, width


class SemanticEmbed(nn.Module):
    """The semantic tokens' way to the next stage's channels: Linear, LayerNorm (spec §2.2)."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.proj_proxy = nn.Sequential(nn.Linear(in_channels, channels), nn.LayerNorm(channels, eps=DEFAULT_EPS))

    def forward(self, s):
        return self.proj_proxy(s)


class DualAttention(nn.Module):
    """Both attentions of a dual block (spec §2.4).

    The semantic tokens attend to each other, then to the pixels, then pass an MLP; each step is a shortcut with its
    LayerScale and without output projection. The pixels attend to the resulting tokens.
    """

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        # Pixel path.
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.proxy_ln = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        # Semantic path: "proxy" is the official code's word for it.
        self.qkv_proxy = nn.Sequential(nn.LayerNorm(channels, eps=DEFAULT_EPS), nn.Linear(channels, 3 * channels))
        self.q_proxy_ln = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        self.q_proxy = nn.Linear(channels, channels)
        self.kv_proxy = nn.Linear(channels, 2 * channels)
        self.p_ln = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        self.mlp_proxy = nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
        self.gamma1, self.gamma2, self.gamma3 = (layer_scale(channels) for _ in range(3))

    def semantics(self, xn, s):
        """The semantic tokens after their three steps; `xn` are the normalised pixels."""
        qkv = split_heads(self.qkv_proxy(s), 3, self.heads)
        s = s + self.gamma1 * merge_heads(attend(qkv[0], qkv[1], qkv[2], self.scale))
        q = to_heads(self.q_proxy(self.q_proxy_ln(s)), self.heads)
        kv = split_heads(self.kv_proxy(xn), 2, self.heads)
        s = s + self.gamma2 * merge_heads(attend(q, kv[0], kv[1], self.scale))
        return s + self.gamma3 * self.mlp_proxy(self.p_ln(s))

    def forward(self, xn, s):
        s = self.semantics(xn, s)
        q = to_heads(self.q(xn), self.heads)
        kv = split_heads(self.kv(self.proxy_ln(s)), 2, self.heads)
        return self.proj(merge_heads(attend(q, kv[0], kv[1], self.scale))), s


class DualBlock(nn.Module):
    """A block of stages 1 and 2: pixels and semantic tokens, each with their own path (spec §2.4)."""

    def __init__(self, channels, heads, mlp_ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = DualAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = ConvMlp(channels, mlp_ratio * channels)
        self.gamma1, self.gamma2 = layer_scale(channels), layer_scale(channels)

    def forward(self, x, s, height, width):
        attended, s = self.attn(self.norm1(x), s)
        x = x + self.gamma1 * attended
        return x + self.gamma2 * self.mlp(self.norm2(x), height, width), s


class Attention(nn.Module):
    """Multi-head self-attention over pixels and semantic tokens together (spec §2.5)."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, z):
        q = to_heads(self.q(z), self.heads)
        kv = split_heads(self.kv(z), 2, self.heads)
        return self.proj(merge_heads(attend(q, kv[0], kv[1], self.scale)))


class MergedMlp(ConvMlp):
    """The pixels' MLP has a depthwise convolution, the semantic tokens' has not (spec §2.5)."""

    def __init__(self, channels, hidden):
        super().__init__(channels, hidden)
        self.fc_proxy = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, z, height, width):
        pixels = height * width
        x = super().forward(z[:, :pixels], height, width)
        return torch.cat((x, self.fc_proxy(z[:, pixels:])), dim=1)


class MergeBlock(nn.Module):
    """A block of stages 3 and 4, on z = pixels then semantic tokens (spec §2.5)."""

    def __init__(self, channels, heads, mlp_ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = MergedMlp(channels, mlp_ratio * channels)
        self.gamma1, self.gamma2 = layer_scale(channels), layer_scale(channels)

    def forward(self, z, height, width):
        z = z + self.gamma1 * self.attn(self.norm1(z))
        return z + self.gamma2 * self.mlp(self.norm2(z), height, width)


class ClassAttention(nn.Module):
    """One query, the class token, over all tokens; the query is scaled before the product (spec §2.7)."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, u):
        q = to_heads(self.q(u[:, :1]), self.heads)
        kv = split_heads(self.kv(u), 2, self.heads)
        return self.proj(merge_heads(attend(q * self.scale, kv[0], kv[1], 1.0)))


class ClassBlock(nn.Module):
    """Updates the class token, row 0 of u, from all rows (spec §2.7): no LayerScale, no convolution."""

    def __init__(self, channels, heads, mlp_ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = ClassAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = Mlp(channels, mlp_ratio * channels)

    def forward(self, u):
        """N×(1 + T)×C → N×1×C."""
        c = u[:, :1] + self.attn(self.norm1(u))
        return c + self.mlp(self.norm2(c))


class DualVit(nn.Module):
    """The whole network (spec §2): N×3×H×W, normalised as ImageNet is → N×classes logits.

    With `aux_head`, as published: logits = head(class token) + 0.5 · the best pixel's aux_head, class by class (spec
    §2.7). Without, as the official code builds it when token labelling is off. The input size is free from 25 pixels
    a side up: the semantic queries are resized to the pooled map (spec §2.3).
    """

    def __init__(self, config, classes=1000, input_size=(224, 224), aux_head=True):
        super().__init__()
        check_size(config, input_size)
        self._make_semantics(config.channels[0])
        in_channels = 3
        for stage, channels in enumerate(config.channels):
            kind = DualBlock if stage < 2 else MergeBlock
            ratios = config.mlp_ratios[stage]
            blocks = [kind(channels, config.heads[stage], ratios[index % 2]) for index in range(config.depths[stage])]
            embed = Stem(config.stem, channels) if stage == 0 else PatchEmbed(in_channels, channels, 3, 2, 1)
            setattr(self, f"patch_embed{stage + 1}", embed)
            if stage > 0:
                setattr(self, f"proxy_embed{stage + 1}", SemanticEmbed(in_channels, channels))
            setattr(self, f"block{stage + 1}", nn.ModuleList(blocks))
            setattr(self, f"norm{stage + 1}", nn.LayerNorm(channels, eps=BLOCK_EPS))
            if stage < 3:
                setattr(self, f"norm_proxy{stage + 1}", nn.LayerNorm(channels, eps=BLOCK_EPS))
            in_channels = channels
        self.post_network = nn.ModuleList([ClassBlock(in_channels, config.heads[3], config.class_mlp_ratio)])
        self.head = nn.Linear(in_channels, classes)
        self.aux_head = nn.Linear(in_channels, classes) if aux_head else None

    def _make_semantics(self, channels):
        """What makes the first semantic tokens (spec §2.3); the names collide with those in blocks (quirk 4)."""
        self.semantic_scale = channels**-0.5
        self.q = nn.Parameter(torch.empty(QUERY_SIDE * QUERY_SIDE, channels))
        nn.init.trunc_normal_(self.q, std=0.02)
        self.q_embed = nn.Sequential(nn.LayerNorm(channels, eps=DEFAULT_EPS), nn.Linear(channels, channels))
        self.kv = nn.Linear(channels, 2 * channels)
        self.proxy_ln = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        self.se = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 2 * channels))

    def queries(self, height, width):
        """The learned queries for a pooled map of this size: resized, bicubic, if it has not as many cells."""
        if height * width == self.q.shape[0]:
            return self.q
        image = self.q.reshape(1, QUERY_SIDE, QUERY_SIDE, -1).permute(0, 3, 1, 2)
        image = functional.interpolate(image, (height, width), mode="bicubic", align_corners=False)
        return image.flatten(2).squeeze(0).transpose(0, 1)

    def fix_queries(self, input_size):
        """Resizes the queries once and for all, for this input size: the results stay the same."""
        height, width = pooled_size(input_size)
        self.q = nn.Parameter(self.queries(height, width).detach().clone())

    def first_semantics(self, x, height, width):
        """The semantic tokens, from stage 1's pixels (spec §2.3)."""
        # Whole cells only: rows and columns beyond the last one are left out.
        image = functional.avg_pool2d(to_map(x, height, width), POOL, POOL)
        pooled = to_tokens(image)
        channels = pooled.shape[-1]
        kv = split_heads(self.kv(pooled), 2, 1)
        q = self.q_embed(self.queries(image.shape[2], image.shape[3])).reshape(1, 1, -1, channels)
        a = merge_heads(attend(q, kv[0], kv[1], self.semantic_scale))
        gates = self.se((a + pooled).mean(dim=1)).reshape(-1, 2, 1, channels).softmax(dim=1)
        return self.proxy_ln(gates[:, 0] * a + gates[:, 1] * pooled)

    def dual_stage(self, stage, x, s, height, width):
        """The blocks of stage 1 or 2, and their norms."""
        for block in getattr(self, f"block{stage}"):
            x, s = block(x, s, height, width)
        return getattr(self, f"norm{stage}")(x), getattr(self, f"norm_proxy{stage}")(s)

    def merge_stage(self, stage, x, s, height, width):
        """The blocks of stage 3 or 4, on pixels and semantic tokens together."""
        z = torch.cat((x, s), dim=1)
        for block in getattr(self, f"block{stage}"):
            z = block(z, height, width)
        return z

    def classify(self, z, pixels):
        """The class block and both heads (spec §2.7); z is unnormalised, its first rows are the pixels."""
        u = torch.cat((z.mean(dim=1, keepdim=True), z), dim=1)
        c = self.post_network[0](u)
        if self.aux_head is None:
            return self.head(self.norm4(c)[:, 0])
        t = self.norm4(torch.cat((c, z), dim=1))
        best = self.aux_head(t[:, 1 : 1 + pixels]).amax(dim=1)
        return self.head(t[:, 0]) + AUX_WEIGHT * best

    def forward(self, image):
        x, height, width = self.patch_embed1(image)
        s = self.first_semantics(x, height, width)
        x, s = self.dual_stage(1, x, s, height, width)
        x, height, width = self.patch_embed2(to_map(x, height, width))
        x, s = self.dual_stage(2, x, self.proxy_embed2(s), height, width)
        x, height, width = self.patch_embed3(to_map(x, height, width))
        z = self.merge_stage(3, x, self.proxy_embed3(s), height, width)
        pixels = height * width
        x, s = self.norm3(z[:, :pixels]), self.norm_proxy3(z[:, pixels:])
        x, height, width = self.patch_embed4(to_map(x, height, width))
        z = self.merge_stage(4, x, self.proxy_embed4(s), height, width)
        return self.classify(z, height * width)


def pooled_size(input_size):
    """Height and width of the pooled map that the semantic tokens are made from: 8×8 at 224, 13×13 at 384."""
    return tuple(-(-side // 4) // POOL for side in input_size)


def check_size(config, input_size):
    """The first stage's map must hold at least one cell of the pooling."""
    if min(pooled_size(input_size)) < 1:
        raise InputSizeError(
            f"input {input_size[0]}x{input_size[1]}: stage 1's map is smaller than its {POOL}x{POOL} pooling; Dual-ViT needs 25 pixels a side or more"
        )


def check_export(config, input_size):
    """Whatever runs can be exported."""
    check_size(config, input_size)
