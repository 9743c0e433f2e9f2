"""Swin Transformer, first version: attention within windows, shifted by half a window in every second block.

Sources: spec swin (official `microsoft/Swin-Transformer`, commit f82860b), paper arXiv 2103.14030.
Every LayerNorm has eps 1e-5 (spec §1).
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from vitlet_models.layers import DEFAULT_EPS, InputSizeError, Mlp, PatchEmbed, check_training_size, merge_heads, pad_map, split_heads


@dataclass(frozen=True)
class Config:
    """One variant. A tuple's item is a stage; channels double from stage to stage."""

    channels: int
    depths: tuple
    heads: tuple
    window: int = 7
    side: int = 224
    mlp_ratio: int = 4


TINY = Config(96, (2, 2, 6, 2), (3, 6, 12, 24))
SMALL = Config(96, (2, 2, 18, 2), (3, 6, 12, 24))
BASE = Config(128, (2, 2, 18, 2), (4, 8, 16, 32))
LARGE = Config(192, (2, 2, 18, 2), (6, 12, 24, 48))

# spec §1; 32 channels a head throughout.
CONFIGS = {
    "swin_tiny_w7_224": TINY,
    "swin_small_w7_224": SMALL,
    "swin_base_w7_224": BASE,
    "swin_base_w12_384": replace(BASE, window=12, side=384),
    "swin_large_w7_224": LARGE,
    "swin_large_w12_384": replace(LARGE, window=12, side=384),
}
# Of our own, for the zoo: what trains on two cores. A third of Swin-T's channels, and two blocks in its third stage.
REDUCED = {"swin_nano_w7_224": Config(32, (2, 2, 2, 2), (1, 2, 4, 8))}

# Added to the logits of pairs that the shift brought together (spec §2.3): not minus infinity.
MASKED = -100.0


def to_windows(x, window):
    """N×H×W×C → (N·windows)×window²×C, windows and their pixels row by row (spec §2.1)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels).transpose(2, 3)
    return x.reshape(-1, window * window, channels)


def from_windows(x, window, height, width):
    """The inverse of `to_windows`."""
    x = x.reshape(-1, height // window, width // window, window, window, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, height, width, x.shape[-1])


def relative_position_index(window):
    """Row of the bias table for every pair of a window's pixels: window²×window² (spec §2.2)."""
    pixel = torch.arange(window * window)
    y, x = pixel // window, pixel % window
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    return rows * (2 * window - 1) + columns


def shift_mask(height, width, window, shift):
    """What is added to the logits of every window: windows×window²×window² (spec §2.3).

    After the shift, a window at the map's end holds pixels from both ends. Only those from one of the nine regions,
    three by three, attend to each other.
    """

    def region(size):
        position = torch.arange(size)
        return (position >= size - window).long() + (position >= size - shift).long()

    labels = 3 * region(height)[:, None] + region(width)[None, :]
    labels = to_windows(labels.reshape(1, height, width, 1), window).squeeze(-1)
    differ = labels[:, :, None] != labels[:, None, :]
    return torch.zeros(differ.shape).masked_fill(differ, MASKED)


class WindowAttention(nn.Module):
    """Attention within every window, with a learned bias for every offset between two pixels (spec §2.1, §2.2)."""

    def __init__(self, channels, heads, window):
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        # The official files hold this and the blocks' masks, so they are in the state dict, though computed.
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def bias(self):
        """1×heads×window²×window²."""
        length = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.reshape(length, length, self.heads).permute(2, 0, 1).unsqueeze(0)

    def forward(self, x, mask):
        qkv = split_heads(self.qkv(x), 3, self.heads)
        # The scale is applied before the product here (spec quirk 2).
        logits = (qkv[0] * self.scale) @ qkv[1].transpose(-2, -1) + self.bias()
        if mask is not None:
            windows, length, _ = mask.shape
            logits = logits.reshape(-1, windows, self.heads, length, length) + mask[None, :, None]
            logits = logits.reshape(-1, self.heads, length, length)
        return self.proj(merge_heads(logits.softmax(dim=-1) @ qkv[2]))


class Block(nn.Module):
    """x + attention(LN(x)) in windows, shifted or not, then x + MLP(LN(x)) (spec §2.1)."""

    def __init__(self, channels, heads, mlp_ratio, size, window, shift):
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        self.attn = WindowAttention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        self.mlp = Mlp(channels, mlp_ratio * channels)
        self.register_buffer("attn_mask", None)
        self.resize(size, shift)

    def resize(self, size, shift):
        """Takes maps of this size from now on; those that are not in whole windows are padded (spec §2.5, torchvision)."""
        self.size, self.shift = size, shift
        self.padded = tuple(length + -length % self.window for length in size)
        self.attn_mask = shift_mask(*self.padded, self.window, shift) if shift else None

    def windows(self, x):
        """Attention within windows of the map N×H×W×C."""
        # Padded pixels are keys like others, and are padded before the shift.
        if self.padded != self.size:
            x = pad_map(x, self.window)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        x = self.attn(to_windows(x, self.window), self.attn_mask)
        x = from_windows(x, self.window, *self.padded)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), dims=(1, 2))
        return x if self.padded == self.size else x[:, : self.size[0], : self.size[1]]

    def forward(self, x):
        batch, length, channels = x.shape
        image = self.norm1(x).reshape(batch, *self.size, channels)
        x = x + self.windows(image).reshape(batch, length, channels)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours' channels side by side, LayerNorm, and a linear map without bias to twice the channels.

    The neighbours' order at (row, column) is (0,0), (1,0), (0,1), (1,1): rows vary first (spec §2.4).
    """

    def __init__(self, channels, size):
        super().__init__()
        self.size = size
        self.norm = nn.LayerNorm(4 * channels, eps=DEFAULT_EPS)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x):
        batch, length, channels = x.shape
        x = x.reshape(batch, *self.size, channels)
        if any(side % 2 for side in self.size):
            x = pad_map(x, 2)
            length = x.shape[1] * x.shape[2]
        neighbours = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        x = torch.cat(neighbours, dim=-1).reshape(batch, length // 4, 4 * channels)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Blocks, every second one shifted by half a window, and the merging that ends all stages but the last."""

    def __init__(self, channels, depth, heads, mlp_ratio, size, window, merge):
        super().__init__()
        # A map no larger than a window is one window, unshifted (spec §2).
        shift = window // 2 if min(size) > window else 0
        window = min(window, *size)
        blocks = [Block(channels, heads, mlp_ratio, size, window, shift if index % 2 else 0) for index in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.downsample = PatchMerging(channels, size) if merge else None

    def resize(self, size):
        """Takes maps of this size from now on; the window stays."""
        for index, block in enumerate(self.blocks):
            shift = block.window // 2 if min(size) > block.window else 0
            block.resize(size, shift if index % 2 else 0)
        if self.downsample is not None:
            self.downsample.size = size

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Swin(nn.Module):
    """The whole network (spec §2): N×3×H×W, normalised as ImageNet is → N×classes logits.

    The input size is built in, because masks depend on it: every stage's map must be in whole windows, or no larger
    than one, and even where it is merged. The official classification code does not pad either (spec §2.5; detection
    code, timm and torchvision do, each differently).
    """

    def __init__(self, config, classes=1000, input_size=None):
        super().__init__()
        input_size = tuple(input_size or (config.side, config.side))
        check_size(config, input_size)
        self.config, self.input_size = config, input_size
        self.patch_embed = PatchEmbed(3, config.channels, 4, 4, 0)
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            channels, size = config.channels << stage, tuple(side // (4 << stage) for side in input_size)
            merge = stage + 1 < len(config.depths)
            self.layers.append(Stage(channels, depth, config.heads[stage], config.mlp_ratio, size, config.window, merge))
        self.norm = nn.LayerNorm(channels, eps=DEFAULT_EPS)
        self.head = nn.Linear(channels, classes)

    def resize(self, side):
        """Takes images of this side from now on, with the parameters of `Config.side`: for training.

        At half the side, windows keep theirs, and maps are padded as torchvision pads them (spec §2.5).
        """
        check_training_size("Swin", side, (self.config.side // 2, self.config.side))
        self.input_size = side, side
        for stage, layer in enumerate(self.layers):
            length = -(-side // (4 << stage))
            layer.resize((length, length))

    def forward(self, image):
        if tuple(image.shape[2:]) != self.input_size:
            raise InputSizeError(f"this Swin was made for input {self.input_size}, not {tuple(image.shape[2:])}")
        x, _, _ = self.patch_embed(image)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


def check_size(config, input_size):
    """Whole patches, whole windows, even maps: the official code's assertions (spec §2.4, §2.5)."""
    window, last = config.window, len(config.depths) - 1
    for stage in range(last + 1):
        size = [side / (4 << stage) for side in input_size]
        side = min(window, *size)
        whole = all(length >= 1 and length == int(length) and length % side == 0 for length in size)
        if not whole:
            suggestion = window * (4 << last)
            raise InputSizeError(
                f"input {input_size[0]}x{input_size[1]}: stage {stage + 1}'s map, {size[0]:g}x{size[1]:g}, is not in whole windows of "
                f"{window}x{window}; take a multiple of {suggestion}"
            )


def check_export(config, input_size):
    """Whatever runs can be exported."""
    check_size(config, input_size)
