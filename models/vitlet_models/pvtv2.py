"""PVTv2: a pyramid of four stages, attention to a spatially reduced map, a depthwise convolution in every MLP.

Sources: spec pvtv2 (official `whai362/PVT`, `classification/pvt_v2.py`, commit 57e2dfa), paper arXiv 2106.13797.
There is no class token, no position embedding and no window.
"""

from dataclasses import dataclass

from torch import nn

from vitlet_models.layers import (
    BLOCK_EPS,
    DEFAULT_EPS,
    ConvMlp,
    InputSizeError,
    attend,
    merge_heads,
    overlapping_patch_embed,
    split_heads,
    to_heads,
    to_map,
    to_tokens,
)


@dataclass(frozen=True)
class Config:
    """One variant. A tuple's item is a stage."""

    channels: tuple = (64, 128, 320, 512)
    depths: tuple = (3, 4, 6, 3)
    heads: tuple = (1, 2, 5, 8)
    mlp_ratios: tuple = (8, 8, 4, 4)
    reductions: tuple = (8, 4, 2, 1)
    # Average pooling to 7×7 replaces the strided convolution (spec §2.2, "linear").
    linear: bool = False


# spec §1. b5 differs from the others in its MLP ratios, too.
CONFIGS = {
    "pvt_v2_b0": Config(channels=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
    "pvt_v2_b1": Config(depths=(2, 2, 2, 2)),
    "pvt_v2_b2": Config(),
    "pvt_v2_b2_li": Config(linear=True),
    "pvt_v2_b3": Config(depths=(3, 4, 18, 3)),
    "pvt_v2_b4": Config(depths=(3, 8, 27, 3)),
    "pvt_v2_b5": Config(depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
}

# The paper's P: side of the pooled map in the linear form.
POOLED = 7


class Attention(nn.Module):
    """Queries from every pixel, keys and values from a smaller map (spec §2.2).

    The smaller map is a convolution with kernel = stride = `reduction` and a LayerNorm (eps 1e-5); without reduction,
    the map itself. In the linear form: pooling to 7×7, 1×1 convolution, LayerNorm, GELU, in that order, whatever the
    reduction.
    """

    def __init__(self, channels, heads, reduction, linear):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.linear = linear
        self.reduced = linear or reduction > 1
        if linear:
            self.pool = nn.AdaptiveAvgPool2d(POOLED)
            self.act = nn.GELU()
        if self.reduced:
            size = 1 if linear else reduction
            # No padding: rows and columns beyond the last whole cell are left out (spec §2.2).
            self.sr = nn.Conv2d(channels, channels, size, stride=size)
            self.norm = nn.LayerNorm(channels, eps=DEFAULT_EPS)

    def reduce(self, x, height, width):
        """The tokens that keys and values are made from."""
        if not self.reduced:
            return x
        image = to_map(x, height, width)
        if self.linear:
            return self.act(self.norm(to_tokens(self.sr(self.pool(image)))))
        return self.norm(to_tokens(self.sr(image)))

    def forward(self, x, height, width):
        q = to_heads(self.q(x), self.heads)
        kv = split_heads(self.kv(self.reduce(x, height, width)), 2, self.heads)
        return self.proj(merge_heads(attend(q, kv[0], kv[1], self.scale)))


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); both norms with eps 1e-6 (spec §2, quirk 1)."""

    def __init__(self, channels, heads, mlp_ratio, reduction, linear):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = Attention(channels, heads, reduction, linear)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = ConvMlp(channels, mlp_ratio * channels, relu=linear)

    def forward(self, x, height, width):
        x = x + self.attn(self.norm1(x), height, width)
        return x + self.mlp(self.norm2(x), height, width)


class PvtV2(nn.Module):
    """The whole network (spec §2): N×3×H×W, normalised as ImageNet is → N×classes logits.

    Every stage is a patch embedding, its blocks, and a LayerNorm with eps 1e-6. The head takes the mean over the last
    stage's tokens. The input size is free from 29 pixels a side up: below that some map is smaller than its reduction.
    """

    def __init__(self, config, classes=1000, input_size=(224, 224)):
        super().__init__()
        check_size(config, input_size)
        in_channels = 3
        for stage, channels in enumerate(config.channels):
            blocks = [
                Block(channels, config.heads[stage], config.mlp_ratios[stage], config.reductions[stage], config.linear)
                for _ in range(config.depths[stage])
            ]
            setattr(self, f"patch_embed{stage + 1}", overlapping_patch_embed(stage, in_channels, channels))
            setattr(self, f"block{stage + 1}", nn.ModuleList(blocks))
            setattr(self, f"norm{stage + 1}", nn.LayerNorm(channels, eps=BLOCK_EPS))
            in_channels = channels
        self.stages = len(config.channels)
        self.head = nn.Linear(in_channels, classes)

    def forward(self, image):
        x = image
        for stage in range(1, self.stages + 1):
            x, height, width = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"block{stage}"):
                x = block(x, height, width)
            x = getattr(self, f"norm{stage}")(x)
            if stage < self.stages:
                x = to_map(x, height, width)
        return self.head(x.mean(dim=1))


def map_sizes(config, input_size):
    """Height and width of every stage's map: halves round up (spec §2.1)."""
    sizes, size = [], [-(-side // 4) for side in input_size]
    for _ in config.channels:
        sizes.append(tuple(size))
        size = [-(-side // 2) for side in size]
    return sizes


def check_size(config, input_size):
    """Every map must hold at least one cell of its reduction."""
    for stage, size in enumerate(map_sizes(config, input_size)):
        reduction = 1 if config.linear else config.reductions[stage]
        if min(size) < reduction:
            raise InputSizeError(
                f"input {input_size[0]}x{input_size[1]}: stage {stage + 1}'s map is {size[0]}x{size[1]}, smaller than its "
                f"reduction, {reduction}; PVTv2 needs 29 pixels a side or more"
            )


def check_export(config, input_size):
    """ONNX has no adaptive pooling: the linear form's must be ordinary pooling, in whole cells (spec §2.2)."""
    uneven = [size for size in map_sizes(config, input_size) if size[0] % POOLED or size[1] % POOLED]
    if config.linear and uneven:
        raise InputSizeError(
            f"input {input_size[0]}x{input_size[1]}: the linear form pools a {uneven[0][0]}x{uneven[0][1]} map to {POOLED}x{POOLED}, "
            f"which ONNX can say for whole cells only; export it at multiples of 224"
        )
