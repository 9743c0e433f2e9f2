"""A residual convolutional network: a teacher for training (`train --teacher`), not a network that vitlet is for.

On small data sets convolutions learn faster than attention, and attention learns faster from them than from labels alone
(Touvron et al., arXiv 2012.12877, section 5). It is a ResNet of two blocks a stage with the stem and the shortcuts of
ResNet-D (He et al., arXiv 1812.01187, section 4).
"""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Channels of the stem and of each stage."""

    stem: int
    channels: tuple
    side: int = 224


CONFIGS = {"convnet": Config(24, (48, 96, 192, 384))}


def convolution(in_channels, out_channels, kernel=3, stride=1):
    """A convolution and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class Block(nn.Module):
    """ReLU(x + two convolutions of x); where the map shrinks, x is averaged first."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.first = convolution(in_channels, out_channels, stride=stride)
        self.second = convolution(out_channels, out_channels)
        shortcut = []
        if stride > 1:
            shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if in_channels != out_channels:
            shortcut.append(convolution(in_channels, out_channels, kernel=1))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x):
        branch = self.second(functional.relu(self.first(x)))
        return functional.relu(branch + self.shortcut(x))


class ConvNet(nn.Module):
    """N×3×H×W, normalised as ImageNet is → N×classes logits. H and W are free."""

    def __init__(self, config, classes=1000, input_size=(224, 224)):
        super().__init__()
        check_size(config, input_size)
        stem, first = config.stem, config.channels[0]
        layers = []
        for in_channels, out_channels, stride in ((3, stem, 2), (stem, stem, 1), (stem, first, 2)):
            layers += [convolution(in_channels, out_channels, stride=stride), nn.ReLU()]
        in_channels = first
        for stage, channels in enumerate(config.channels):
            layers += [Block(in_channels, channels, 2 if stage else 1), Block(channels, channels, 1)]
            in_channels = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(in_channels, classes)

    def forward(self, image):
        return self.head(self.body(image).mean(dim=(2, 3)))


def check_size(_, input_size):
    """Any that leaves a pixel."""
    if min(input_size) < 32:
        raise ValueError(f"input {input_size[0]}x{input_size[1]}: at least 32 pixels a side")
