"""What more than one family is made of.

Layouts: an image map is N×C×H×W, as PyTorch's convolutions have it; tokens are N×T×C, the map's pixels row by row.
"""

from torch import nn
from torch.nn import functional

# Every family writes some norms with PyTorch's default and others with 1e-6; each use says which and the spec's section.
DEFAULT_EPS = 1e-5
BLOCK_EPS = 1e-6


class InputSizeError(ValueError):
    """A network cannot run at the input size asked for."""


def to_tokens(image):
    """N×C×H×W → N×HW×C."""
    # Not `flatten`: the exporter writes that as a computation of the shape.
    batch, channels, height, width = image.shape
    return image.reshape(batch, channels, height * width).transpose(1, 2)


def to_map(tokens, height, width):
    """N×HW×C → N×C×H×W."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


def to_heads(x, heads):
    """N×T×C → N×heads×T×d. The channels are in the order (head, d)."""
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(1, 2)


def split_heads(x, parts, heads):
    """N×T×(parts·C) → parts × N×heads×T×d. The channels are in the order (part, head, d), in all four families."""
    batch, length, channels = x.shape
    return x.reshape(batch, length, parts, heads, channels // (parts * heads)).permute(2, 0, 3, 1, 4)


def merge_heads(x):
    """N×heads×T×d → N×T×C."""
    batch, heads, length, dim = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * dim)


def attend(q, k, v, scale, bias=None):
    """softmax(q·kᵀ·scale + bias)·v, the scale applied after the product. Any leading dimensions."""
    logits = (q @ k.transpose(-2, -1)) * scale
    if bias is not None:
        logits = logits + bias
    return logits.softmax(dim=-1) @ v


def pad_map(image, multiple):
    """N×H×W×C with zeros at the bottom and the right, up to whole multiples."""
    height, width = image.shape[1:3]
    return functional.pad(image, (0, 0, 0, -width % multiple, 0, -height % multiple))


class TrainingSizeError(InputSizeError):
    """A network is not trained at the input size asked for."""


def check_training_size(family, side, sides):
    """Networks with windows are trained at their own side and at half of it: there every map is padded as their spec says."""
    if side not in sides:
        raise TrainingSizeError(f"input {side}: {family} is trained at {' or '.join(map(str, sides))}")


class PatchEmbed(nn.Module):
    """A strided convolution, then LayerNorm with eps 1e-5 over the channels.

    spec pvtv2 §2.1, sepvit §2.1, dualvit §2.2: kernel 7 stride 4 pad 3 at the image, kernel 3 stride 2 pad 1 between
    stages; swin §2: kernel 4 stride 4 without padding.
    """

    def __init__(self, in_channels, out_channels, kernel, stride, padding):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        self.norm = nn.LayerNorm(out_channels, eps=DEFAULT_EPS)

    def forward(self, image):
        """N×C×H×W → tokens, and the height and width of their map."""
        image = self.proj(image)
        height, width = image.shape[2:]
        return self.norm(to_tokens(image)), height, width


def overlapping_patch_embed(stage, in_channels, out_channels):
    """The patch embedding of PVTv2 and SepViT: `stage` counts from 0."""
    kernel, stride, padding = (7, 4, 3) if stage == 0 else (3, 2, 1)
    return PatchEmbed(in_channels, out_channels, kernel, stride, padding)


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))), GELU in its exact (erf) form: spec sepvit §2.3, swin §2.1, dualvit §2.7."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class DepthwiseConv(nn.Module):
    """A 3×3 convolution of each channel on its own, zero padded, on tokens: the map's size is kept."""

    def __init__(self, channels):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens, height, width):
        return to_tokens(self.dwconv(to_map(tokens, height, width)))


class ConvMlp(nn.Module):
    """fc2(GELU(dwconv(fc1(x)))): the depthwise convolution has no shortcut of its own.

    spec pvtv2 §2.3, dualvit §2.4. With `relu`, the linear form of PVTv2, a ReLU precedes the convolution.
    """

    def __init__(self, channels, hidden, relu=False):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dwconv = DepthwiseConv(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens, height, width):
        hidden = self.relu(self.fc1(tokens))
        return self.fc2(self.act(self.dwconv(hidden, height, width)))
