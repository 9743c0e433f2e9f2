"""Small computations in numpy, in f64 and in loops, that the networks are compared with.

They share no code with the package: each is written from the spec's formulas, one token, head and pixel at a time.
"""

import math

import numpy as np


class Weights:
    """A module's state dict as numpy arrays; `weights / "attn"` are those below `attn`."""

    def __init__(self, state, prefix=""):
        self.state, self.prefix = state, prefix

    @classmethod
    def of(cls, module):
        return cls({key: value.numpy().astype(np.float64) for key, value in module.state_dict().items()})

    def __truediv__(self, name):
        return Weights(self.state, f"{self.prefix}{name}.")

    def __getitem__(self, name):
        return self.state[self.prefix + name]


def linear(x, w):
    """Rows of x times the weights' rows, plus the bias."""
    weight, bias = w["weight"], w["bias"]
    y = np.zeros((len(x), len(weight)))
    for row in range(len(x)):
        for out in range(len(weight)):
            y[row, out] = np.sum(x[row] * weight[out]) + bias[out]
    return y


def layer_norm(x, w, eps):
    """Every row less its mean, over its standard deviation."""
    y = np.zeros_like(x)
    for row, values in enumerate(x):
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        y[row] = (values - mean) / math.sqrt(variance + eps) * w["weight"] + w["bias"]
    return y


def gelu(x):
    return np.vectorize(lambda value: 0.5 * value * (1 + math.erf(value / math.sqrt(2))))(x)


def relu(x):
    return np.maximum(x, 0.0)


def softmax(values):
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def attention(q, k, v, heads):
    """Rows of q attend to rows of k; channels are in the order (head, d), the scale is d^-0.5."""
    dim = q.shape[1] // heads
    out = np.zeros((len(q), v.shape[1]))
    for head in range(heads):
        mine = slice(head * dim, (head + 1) * dim)
        for i in range(len(q)):
            probabilities = softmax([np.sum(q[i, mine] * k[j, mine]) * dim**-0.5 for j in range(len(k))])
            for j, probability in enumerate(probabilities):
                out[i, mine] += probability * v[j, mine]
    return out


def conv(image, weight, bias, stride, pad):
    """C×H×W, zero padded; a weight with one input channel but several outputs is depthwise."""
    out_channels, group_channels, kernel, _ = weight.shape
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * pad, width + 2 * pad))
    padded[:, pad : pad + height, pad : pad + width] = image
    out_height, out_width = (height + 2 * pad - kernel) // stride + 1, (width + 2 * pad - kernel) // stride + 1
    out = np.zeros((out_channels, out_height, out_width))
    for channel in range(out_channels):
        source = padded if group_channels == channels else padded[channel : channel + 1]
        for y in range(out_height):
            for x in range(out_width):
                patch = source[:, y * stride : y * stride + kernel, x * stride : x * stride + kernel]
                out[channel, y, x] = np.sum(patch * weight[channel]) + (0 if bias is None else bias[channel])
    return out


def to_tokens(image):
    """C×H×W → HW×C, row by row."""
    channels, height, width = image.shape
    return np.array([image[:, y, x] for y in range(height) for x in range(width)]).reshape(height * width, channels)


def to_map(tokens, height, width):
    """HW×C → C×H×W."""
    image = np.zeros((tokens.shape[1], height, width))
    for index, token in enumerate(tokens):
        image[:, index // width, index % width] = token
    return image


def patch_embed(image, w, stride, pad):
    """Tokens, and the height and width of their map."""
    image = conv(image, w["proj.weight"], w["proj.bias"], stride, pad)
    return layer_norm(to_tokens(image), w / "norm", 1e-5), image.shape[1], image.shape[2]


def mlp(x, w):
    return linear(gelu(linear(x, w / "fc1")), w / "fc2")


def conv_mlp(x, w, height, width):
    """fc1, depthwise 3×3, GELU, fc2."""
    hidden = to_map(linear(x, w / "fc1"), height, width)
    hidden = conv(hidden, w["dwconv.dwconv.weight"], w["dwconv.dwconv.bias"], 1, 1)
    return linear(gelu(to_tokens(hidden)), w / "fc2")


def cubic(distance):
    """The convolution kernel of bicubic interpolation with a = -0.75, PyTorch's."""
    a, t = -0.75, abs(distance)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    if t < 2:
        return a * (t**3 - 5 * t**2 + 8 * t - 4)
    return 0.0


def resize_bicubic(image, out_height, out_width):
    """C×H×W; corners not aligned, no antialias, the border repeats."""
    channels, height, width = image.shape
    out = np.zeros((channels, out_height, out_width))
    for y in range(out_height):
        for x in range(out_width):
            v, u = (y + 0.5) * height / out_height - 0.5, (x + 0.5) * width / out_width - 0.5
            for row in range(math.floor(v) - 1, math.floor(v) + 3):
                for column in range(math.floor(u) - 1, math.floor(u) + 3):
                    pixel = image[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                    out[:, y, x] += cubic(v - row) * cubic(u - column) * pixel
    return out
