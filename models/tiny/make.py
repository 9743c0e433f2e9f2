"""Writes the tiny ONNX models that the tests compile: random seeded weights, a few kilobytes, seconds instead of minutes.

    pip install onnx==1.23.2 numpy && python models/tiny/make.py

tiny_pvt.onnx          two stages of a PVTv2-like network as timm exports them: opset 17, LayerNormalization, q scaled before the product
tiny_pvt_spelled.onnx  the same network and weights as an older exporter would write it: opset 13, layer norm and GELU spelled out in
                       small operations, keys and values indexed out of one tensor, logits scaled after the product, batch dimension symbolic
tiny_pvt_linear.onnx   the first one with linear attention (average pooling, 1×1 convolution, LN, GELU) and ReLU after fc1, as PVTv2's b2_li
unsupported.onnx       the first one with two operations (Sin, TopK) that no int8 plan has
"""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent
IMAGE, CLASSES, POOL = 32, 10, 2
STAGES = [dict(channels=16, heads=2, reduction=2, kernel=7, stride=4, pad=3), dict(channels=32, heads=4, reduction=1, kernel=3, stride=2, pad=1)]


class Builder:
    """A graph under construction; weights come from one seeded stream, so both spellings share them."""

    def __init__(self, spelled=False, linear=False):
        self.nodes, self.weights, self.spelled, self.pooled = [], [], spelled, linear
        self.random, self.count = np.random.RandomState(7), 0

    def node(self, op, inputs, **attributes):
        self.count += 1
        name = f"n{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array, dtype=np.float32):
        self.count += 1
        name = f"c{self.count}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, values):
        return self.constant(values, np.int64)

    def normal(self, *shape, gain=1.0):
        fan_in = int(np.prod(shape[1:])) or 1
        return self.random.randn(*shape).astype(np.float32) * gain / np.sqrt(fan_in)

    def vector(self, n, mean=0.0, spread=0.2):
        return (mean + spread * self.random.randn(n)).astype(np.float32)

    def conv(self, x, c_in, c_out, kernel, stride, pad, groups=1):
        weights = self.normal(c_out, c_in // groups, kernel, kernel)
        bias = self.vector(c_out)
        return self.node("Conv", [x, self.constant(weights), self.constant(bias)], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups)

    def linear(self, x, c_in, c_out, gain=1.0):
        weights, bias = self.normal(c_out, c_in, gain=gain), self.vector(c_out, spread=0.1)
        return self.node("Add", [self.node("MatMul", [x, self.constant(weights.T)]), self.constant(bias)])

    def norm(self, x, channels, eps):
        gamma, beta = self.constant(self.vector(channels, 1.0)), self.constant(self.vector(channels))
        if not self.spelled:
            return self.node("LayerNormalization", [x, gamma, beta], axis=-1, epsilon=eps)
        centred = self.node("Sub", [x, self.node("ReduceMean", [x], axes=[-1], keepdims=1)])
        square = self.node("Pow", [centred, self.constant(2.0)])
        variance = self.node("ReduceMean", [square], axes=[-1], keepdims=1)
        root = self.node("Sqrt", [self.node("Add", [variance, self.constant(eps)])])
        scaled = self.node("Mul", [self.node("Div", [centred, root]), gamma])
        return self.node("Add", [scaled, beta])

    def gelu(self, x):
        erf = self.node("Erf", [self.node("Div", [x, self.constant(np.sqrt(2.0))])])
        half = self.node("Mul", [x, self.node("Add", [erf, self.constant(1.0)])])
        return self.node("Mul", [half, self.constant(0.5)])

    def tokens(self, x, channels, count):
        flat = self.node("Reshape", [x, self.ints([0, channels, count])])
        return self.node("Transpose", [flat], perm=[0, 2, 1])

    def image(self, x, channels, side):
        return self.node("Reshape", [self.node("Transpose", [x], perm=[0, 2, 1]), self.ints([0, channels, side, side])])

    def heads(self, x, count, heads, dim, perm):
        return self.node("Transpose", [self.node("Reshape", [x, self.ints([0, count, heads, dim])])], perm=perm)

    def attention(self, x, channels, heads, side, reduction):
        dim, queries, keys = channels // heads, side * side, (side // reduction) ** 2
        q = self.linear(x, channels, channels, gain=2.0)
        reduced = x
        if self.pooled:
            keys = POOL * POOL
            pooled = self.node("AveragePool", [self.image(x, channels, side)], kernel_shape=[side // POOL] * 2, strides=[side // POOL] * 2)
            reduced = self.tokens(self.conv(pooled, channels, channels, 1, 1, 0), channels, keys)
            reduced = self.gelu(self.norm(reduced, channels, 1e-5))
        elif reduction > 1:
            reduced = self.conv(self.image(x, channels, side), channels, channels, reduction, reduction, 0)
            reduced = self.norm(self.tokens(reduced, channels, keys), channels, 1e-5)
        kv = self.linear(reduced, channels, 2 * channels, gain=2.0)
        q = self.heads(q, queries, heads, dim, [0, 2, 1, 3])
        if self.spelled:
            both = self.node("Reshape", [kv, self.ints([0, keys, 2, heads, dim])])
            both = self.node("Transpose", [both], perm=[2, 0, 3, 1, 4])
            k, v = (self.node("Gather", [both, self.ints(which)], axis=0) for which in (0, 1))
            k = self.node("Transpose", [k], perm=[0, 1, 3, 2])
        else:
            k = self.node("Slice", [kv, self.ints([0]), self.ints([channels]), self.ints([2])])
            v = self.node("Slice", [kv, self.ints([channels]), self.ints([2 * channels]), self.ints([2])])
            k = self.heads(k, keys, heads, dim, [0, 2, 3, 1])
            v = self.heads(v, keys, heads, dim, [0, 2, 1, 3])
        scale = self.constant(dim**-0.5)
        if self.spelled:
            logits = self.node("Mul", [self.node("MatMul", [q, k]), scale])
        else:
            logits = self.node("MatMul", [self.node("Mul", [q, scale]), k])
        mixed = self.node("MatMul", [self.node("Softmax", [logits], axis=-1), v])
        mixed = self.node("Reshape", [self.node("Transpose", [mixed], perm=[0, 2, 1, 3]), self.ints([0, queries, channels])])
        return self.linear(mixed, channels, channels)

    def ffn(self, x, channels, side):
        hidden = 2 * channels
        h = self.linear(x, channels, hidden)
        h = self.image(self.node("Relu", [h]) if self.pooled else h, hidden, side)
        h = self.gelu(self.conv(h, hidden, hidden, 3, 1, 1, groups=hidden))
        return self.linear(self.tokens(h, hidden, side * side), hidden, channels)

    def network(self):
        x, channels, side = "image", 3, IMAGE
        for s in STAGES:
            x = self.conv(x, channels, s["channels"], s["kernel"], s["stride"], s["pad"])
            channels, side = s["channels"], side // s["stride"]
            x = self.norm(self.tokens(x, channels, side * side), channels, 1e-5)
            x = self.node("Add", [x, self.attention(self.norm(x, channels, 1e-6), channels, s["heads"], side, s["reduction"])])
            x = self.node("Add", [x, self.ffn(self.norm(x, channels, 1e-6), channels, side)])
            x = self.norm(x, channels, 1e-6)
            if s is not STAGES[-1]:
                x = self.image(x, channels, side)
        pooled = self.node("ReduceMean", [x], axes=[1], keepdims=0)
        head, bias = self.normal(CLASSES, channels), self.vector(CLASSES)
        return self.node("Gemm", [pooled, self.constant(head), self.constant(bias)], transB=1)

    def save(self, name, output, opset, batch, width=CLASSES):
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, IMAGE, IMAGE])
        logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, width])
        graph = helper.make_graph(self.nodes, "tiny", [image], [logits], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        (HERE / name).write_bytes(model.SerializeToString())


def main():
    plain = Builder()
    plain.save("tiny_pvt.onnx", plain.network(), 17, 1)
    spelled = Builder(spelled=True)
    spelled.save("tiny_pvt_spelled.onnx", spelled.network(), 13, "N")
    linear = Builder(linear=True)
    linear.save("tiny_pvt_linear.onnx", linear.network(), 17, 1)
    odd = Builder()
    waves = odd.node("Sin", [odd.network()])
    odd.nodes.append(helper.make_node("TopK", [waves, odd.ints([3])], ["values", "indices"], name="topk", axis=-1))
    odd.save("unsupported.onnx", "values", 17, 1, width=3)


main()
