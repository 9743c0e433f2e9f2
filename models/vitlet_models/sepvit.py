"""SepViT: attention within windows, then between windows, weighted by one window token for each.

Sources: spec sepvit (official `liwei109/SepViT`, commit 2b420d3), paper arXiv 2203.15380. Where the paper's equations
and the official code differ, this is the code (spec §2.5): its parameter counts are the published ones.
No checkpoint has been published.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from vitlet_models.layers import (
    BLOCK_EPS,
    DEFAULT_EPS,
    InputSizeError,
    Mlp,
    attend,
    check_training_size,
    merge_heads,
    overlapping_patch_embed,
    split_heads,
    to_map,
    to_tokens,
)


@dataclass(frozen=True)
class Config:
    """One variant. A tuple's item is a stage; `windows` holds the window side of every block in it."""

    channels: tuple
    heads: tuple
    windows: tuple
    mlp_ratio: int = 4
    # The one input side: a block has as many learned window tokens as there are windows.
    side: int = 224


def windows_of(stage3_pairs):
    """Window sides at 224×224 (spec §1): stages 2 and 3 alternate 7 and 14; 7 is the whole map of stage 4."""
    return ((7,), (7, 14), (7, 14) * stage3_pairs, (7, 7))


# spec §1; 32 channels a head throughout.
CONFIGS = {
    "sepvit_lite": Config((32, 64, 128, 256), (1, 2, 4, 8), windows_of(3)),
    "sepvit_tiny": Config((96, 192, 384, 768), (3, 6, 12, 24), windows_of(3)),
    "sepvit_small": Config((96, 192, 384, 768), (3, 6, 12, 24), windows_of(7)),
    "sepvit_base": Config((128, 256, 512, 1024), (4, 8, 16, 32), windows_of(7)),
}


def to_windows(x, side, window):
    """Raster tokens N×side²×C → (N·windows)×window²×C, windows and their pixels row by row (spec §2.3)."""
    batch, _, channels = x.shape
    grid = side // window
    x = x.reshape(batch, grid, window, grid, window, channels).transpose(2, 3)
    return x.reshape(batch * grid * grid, window * window, channels)


def average_tokens(tokens, windows):
    """1×own windows×1×C → 1×windows×1×C: every token is the mean of those whose place in the grid it takes."""
    own, grid = (round(count**0.5) for count in (tokens.shape[1], windows))
    tokens = tokens.reshape(1, grid, own // grid, grid, own // grid, -1)
    return tokens.mean(dim=(2, 4)).reshape(1, windows, 1, -1)


def from_windows(x, side, window):
    """The inverse of `to_windows`."""
    grid, channels = side // window, x.shape[-1]
    x = x.reshape(-1, grid, grid, window, window, channels).transpose(2, 3)
    return x.reshape(-1, side * side, channels)


class SeparableAttention(nn.Module):
    """Self-attention in every window, then pointwise self-attention between windows (spec §2.4).

    Two shortcuts lie inside: the first adds the normalised input to the windows' attention before any projection, the
    second adds its result to the mix of windows. The only projection comes last. A single window has neither window
    token nor pointwise attention.
    """

    def __init__(self, channels, heads, side, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.resize(side)
        self.pointwise = self.windows > 1
        self.scale = (channels // heads) ** -0.5
        # The official names are the keys of its checkpoints.
        self.DSA_qkv = nn.Linear(channels, 3 * channels)
        if self.pointwise:
            # eps 1e-5: spec §2.4, quirk 1.
            self.win_tokens_norm = nn.LayerNorm(channels, eps=DEFAULT_EPS)
            self.act = nn.GELU()
            self.PSA_qk = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)

    def resize(self, side):
        """Takes maps of another side from now on: in whole windows, or smaller than the only one."""
        self.side = side
        self.windows = max(side // self.window, 1) ** 2
        # Pixels that a smaller map lacks in its window.
        self.padding = max(self.window**2 - side**2, 0)

    def within(self, z):
        """Attention in every window, with its shortcut: (N·windows)×T×C.

        The last row of a padded window stands for all padding: their keys are equal, so one counts as many times as
        there are (its logit grows by their number's logarithm), and no query of theirs is needed.
        """
        qkv = split_heads(self.DSA_qkv(z), 3, self.heads)
        if not self.padding:
            return merge_heads(attend(qkv[0], qkv[1], qkv[2], self.scale)) + z
        times = torch.zeros(z.shape[1], dtype=z.dtype)
        times[-1] = math.log(self.padding)
        return merge_heads(attend(qkv[0][:, :, :-1], qkv[1], qkv[2], self.scale, times)) + z[:, :-1]

    def between(self, token, pixels):
        """Pixel p of a window becomes a mix of the pixels p of all windows; the window tokens say how much of each."""
        channels = pixels.shape[-1]
        token = token.reshape(-1, self.windows, channels)
        qk = split_heads(self.PSA_qk(self.act(self.win_tokens_norm(token))), 2, self.heads)
        area, dim = self.window * self.window, channels // self.heads
        # A window's values, for one head, are one long vector: N×heads×windows×(area·d).
        values = pixels.reshape(-1, self.windows, area, self.heads, dim).permute(0, 3, 1, 2, 4)
        values = values.reshape(-1, self.heads, self.windows, area * dim)
        mixed = attend(qk[0], qk[1], values, self.scale)
        mixed = mixed.reshape(-1, self.heads, self.windows, area, dim).permute(0, 2, 3, 1, 4)
        return mixed.reshape(-1, area, channels) + pixels

    def forward(self, z):
        """Normalised windows, with their token in row 0 if they have one → N×side²×C in raster order."""
        y = self.within(z)
        if self.pointwise:
            y = from_windows(self.between(y[:, 0], y[:, 1:]), self.side, self.window)
        return self.proj(y)


class Block(nn.Module):
    """x + attention(LN(windows and tokens)), then x + MLP(LN(x)); both norms with eps 1e-6 (spec §2.3).

    The first norm covers the window tokens as well as the pixels.
    """

    def __init__(self, channels, heads, mlp_ratio, side, window):
        super().__init__()
        self.attn = SeparableAttention(channels, heads, side, window)
        if self.attn.pointwise:
            # One learned vector for every window of every block, zero at first (spec §2.3).
            self.win_tokens = nn.Parameter(torch.zeros(1, self.attn.windows, 1, channels))
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = Mlp(channels, mlp_ratio * channels)

    def windows_with_tokens(self, x):
        """(N·windows)×(1 + window²)×C."""
        batch, _, channels = x.shape
        tokens = self.win_tokens
        if tokens.shape[1] != self.attn.windows:
            tokens = average_tokens(tokens, self.attn.windows)
        # With one image they are a constant, and are to be one in the exported file.
        if batch != 1:
            tokens = tokens.expand(batch, -1, -1, -1)
        tokens = tokens.reshape(-1, 1, channels)
        return torch.cat((tokens, to_windows(x, self.attn.side, self.attn.window)), dim=1)

    def forward(self, x):
        z = x
        if self.attn.pointwise:
            z = self.windows_with_tokens(x)
        elif self.attn.padding:
            # Zeros before the norm, so its beta after it (spec §6).
            z = functional.pad(x, (0, 0, 0, 1))
        x = x + self.attn(self.norm1(z))
        return x + self.mlp(self.norm2(x))


class PositionEncoding(nn.Module):
    """x + depthwise 3×3 convolution of x's map; no norm, no activation (spec §2.2)."""

    def __init__(self, channels):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))

    def forward(self, x, height, width):
        return x + to_tokens(self.proj(to_map(x, height, width)))


class SepVit(nn.Module):
    """The whole network (spec §2): N×3×224×224, normalised as ImageNet is → N×classes logits.

    Every stage is a patch embedding and its blocks; the position encoding follows the first block. The last norm
    (eps 1e-6) comes before the mean over tokens. The official classification model runs at 224×224 only.
    """

    def __init__(self, config, classes=1000, input_size=(224, 224)):
        super().__init__()
        check_size(config, input_size)
        self.config = config
        self.patch_embeds, self.pos_block, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        in_channels, side = 3, config.side // 4
        for stage, channels in enumerate(config.channels):
            self.patch_embeds.append(overlapping_patch_embed(stage, in_channels, channels))
            self.pos_block.append(PositionEncoding(channels))
            blocks = [Block(channels, config.heads[stage], config.mlp_ratio, side, window) for window in config.windows[stage]]
            self.blocks.append(nn.ModuleList(blocks))
            in_channels, side = channels, side // 2
        self.norm = nn.LayerNorm(in_channels, eps=BLOCK_EPS)
        self.head = nn.Linear(in_channels, classes)

    def resize(self, side):
        """Takes images of this side from now on, with the parameters of `Config.side`: for training (spec §6).

        At half the side, a block with window tokens takes the mean of each 2×2 of them, and the maps smaller than
        their only window are padded.
        """
        check_training_size("SepViT", side, (self.config.side // 2, self.config.side))
        for stage, blocks in enumerate(self.blocks):
            for block in blocks:
                block.attn.resize(-(-side // (4 << stage)))

    def forward(self, image):
        x = image
        for stage, blocks in enumerate(self.blocks):
            x, height, width = self.patch_embeds[stage](x)
            for index, block in enumerate(blocks):
                x = block(x)
                if index == 0:
                    x = self.pos_block[stage](x, height, width)
            if stage + 1 < len(self.blocks):
                x = to_map(x, height, width)
        return self.head(self.norm(x).mean(dim=1))


def check_size(config, input_size):
    """The grid of windows is fixed: the official code neither pads nor resizes (spec §1)."""
    side = config.side
    if tuple(input_size) != (side, side):
        raise InputSizeError(
            f"input {input_size[0]}x{input_size[1]}: SepViT runs at {side}x{side} only, "
            f"because it has one learned token for each window of that size's grid"
        )
    for stage, windows in enumerate(config.windows):
        for window in windows:
            if (side // (4 << stage)) % window:
                raise InputSizeError(f"stage {stage + 1}'s map is {side // (4 << stage)} a side, not a multiple of its window, {window}")


def check_export(config, input_size):
    """Whatever runs can be exported."""
    check_size(config, input_size)
