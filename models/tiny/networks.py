"""Writes the tiny ONNX models of the other families: real exports of small networks with random seeded weights.

    pip install ./models torch==2.15.0 timm==1.0.31 onnx==1.23.2 onnxscript==0.7.2 && python models/tiny/networks.py

From `models/vitlet_models`, each in three spellings: opset 17 by PyTorch's classic exporter; `_spelled`, opset 13, where layer norm
and GELU are spelled out, with a symbolic batch dimension, where shapes are computed; `_dynamo`, opset 18 by the newer exporter.

tiny_swin              maps of 16×16, 8×8 and 4×4 in windows of 4: shift, mask, bias, patch merging; the last stage is one window, unshifted
tiny_sepvit            window tokens over 16 and 4 windows, blocks with a single window, position encoding, internal shortcuts
tiny_dualvit           stem with batch norms that are nodes of their own, pooling that leaves two rows and columns out, as at 384; semantic
                       tokens, dual, merge and class blocks, LayerScale, head and auxiliary head
tiny_dualvit_no_aux    without the auxiliary head, batch norms folded, pooling in whole cells, as at 224 (one spelling)
tiny_pvt_dynamo        two stages of PVTv2 by the newer exporter, with a symbolic batch dimension, also in its notes on every value's shape;
                       make.py has the others

From timm, as its users export them (opset 17, classic exporter):

tiny_swin_timm         tiny_swin in timm's words, with the same weights: padding of nothing, merging as a transposition, computed shapes
tiny_vit               class token, position embedding
tiny_twins             local attention in windows, global attention to a reduced map, position encoding
tiny_convnext          7×7 depthwise convolutions, layer norm over a map's channels, LayerScale
tiny_mobilenetv2       inverted residuals, ReLU6, batch norms folded
tiny_resnet            7×7 stem, max pooling, ReLU after the shortcut
tiny_efficientnet_lite 5×5 depthwise convolutions, ReLU6
tiny_mobilevitv2       SiLU, group norm over the whole map, separable attention (products and sums with broadcast)
"""

import pathlib

import onnx
import torch
from timm.models import byobnet, convnext, efficientnet, resnet, swin_transformer, twins, vision_transformer
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn

from vitlet_models import checkpoints, dualvit, export, pvtv2, sepvit, swin

HERE = pathlib.Path(__file__).parent
SEED, CLASSES = 7, 10

SWIN = swin.Config(8, (2, 2, 1), (1, 2, 4), window=4, side=64, mlp_ratio=2)
SEPVIT = sepvit.Config((8, 16, 32), (1, 2, 4), ((4, 8), (4, 8), (4,)), mlp_ratio=2, side=64)
RATIOS = ((4, 4), (4, 4), (3, 2), (2, 2))
DUALVIT = dualvit.Config(8, (16, 16, 16, 24), (1, 1, 2, 1), (2, 2, 2, 3), RATIOS)
PVT = pvtv2.Config((16, 32), (1, 1), (2, 4), (2, 2), (2, 1))
DUALVIT_NO_AUX = dualvit.Config(4, (8, 8, 8, 16), (1, 1, 1, 1), (1, 1, 1, 2), RATIOS)


def dual(config, side, aux_head=True):
    return lambda: dualvit.DualVit(config, CLASSES, (side, side), aux_head)


def swin_timm():
    return swin_transformer.SwinTransformer(
        img_size=64, num_classes=CLASSES, embed_dim=8, depths=(2, 2, 1), num_heads=(1, 2, 4), window_size=4, mlp_ratio=2.0
    )


def vit():
    return vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, num_classes=CLASSES, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0
    )


def twins_svt():
    return twins.Twins(
        img_size=64,
        num_classes=CLASSES,
        embed_dims=(8, 16),
        num_heads=(1, 2),
        mlp_ratios=(2, 2),
        depths=(2, 2),
        sr_ratios=(4, 2),
        wss=(4, 4),
    )


def mobile_net(arch, stem, features):
    """A network of timm's mobile family: its stages in timm's notation."""

    def make():
        return efficientnet.EfficientNet(
            block_args=decode_arch_def(arch), num_classes=CLASSES, num_features=features, stem_size=stem, fix_stem=True, act_layer=nn.ReLU6
        )

    return make


def mobile_vit():
    inverted = {"type": "bottle", "d": 1, "gs": 1, "br": 2.0, "block_kwargs": {"bottle_in": True, "linear_out": True}}
    mixer = {"type": "mobilevit2", "d": 1, "s": 1, "br": 0.5, "gs": 1, "block_kwargs": {"transformer_depth": 2, "patch_size": 2}}
    blocks = (
        byobnet.ByoBlockCfg(c=8, s=1, **inverted),
        byobnet.ByoBlockCfg(c=16, s=2, **inverted),
        (byobnet.ByoBlockCfg(c=24, s=2, **inverted), byobnet.ByoBlockCfg(c=24, **mixer)),
    )
    config = byobnet.ByoModelCfg(blocks=blocks, stem_chs=8, stem_type="3x3", stem_pool="", downsample="", act_layer="silu")
    return byobnet.ByobNet(config, num_classes=CLASSES)


CLASSIC = {"": {}}
NEWER = {"_dynamo": {"opset": 18, "dynamo": True}}
NEWER_SYMBOLIC = {"_dynamo": {"opset": 18, "dynamo": True, "symbolic_batch": True}}
ALL = CLASSIC | {"_spelled": {"opset": 13, "symbolic_batch": True}} | NEWER

# Name → network, side of the input, spellings.
NETWORKS = {
    "tiny_swin": (lambda: swin.Swin(SWIN, CLASSES), 64, ALL),
    "tiny_sepvit": (lambda: sepvit.SepVit(SEPVIT, CLASSES, (64, 64)), 64, ALL),
    "tiny_dualvit": (dual(DUALVIT, 64), 64, ALL),
    "tiny_dualvit_no_aux": (dual(DUALVIT_NO_AUX, 56, aux_head=False), 56, CLASSIC),
    "tiny_pvt": (lambda: pvtv2.PvtV2(PVT, CLASSES, (32, 32)), 32, NEWER_SYMBOLIC),
    "tiny_swin_timm": (swin_timm, 64, CLASSIC),
    "tiny_vit": (vit, 32, CLASSIC),
    "tiny_twins": (twins_svt, 64, CLASSIC),
    "tiny_convnext": (lambda: convnext.ConvNeXt(num_classes=CLASSES, depths=(1, 1, 2, 1), dims=(8, 16, 16, 24)), 64, CLASSIC),
    "tiny_mobilenetv2": (mobile_net([["ds_r1_k3_s1_c8"], ["ir_r2_k3_s2_e4_c16"], ["ir_r2_k3_s2_e4_c24"]], 8, 64), 64, CLASSIC),
    "tiny_efficientnet_lite": (mobile_net([["ds_r1_k3_s1_e1_c8"], ["ir_r2_k5_s2_e4_c16"], ["ir_r1_k3_s1_e4_c24"]], 8, 64), 64, CLASSIC),
    "tiny_resnet": (
        lambda: resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, channels=(8, 8, 16, 24), stem_width=8),
        64,
        CLASSIC,
    ),
    "tiny_mobilevitv2": (mobile_vit, 64, CLASSIC),
}
# As nodes of their own, where the exporter can: tract is to fold them.
KEEP_BATCH_NORM = ("tiny_dualvit",)


def made(make, side):
    torch.manual_seed(SEED)
    model = make().eval()
    checkpoints.randomise(model, SEED)
    checkpoints.settle(model, (side, side), SEED)
    if isinstance(model, dualvit.DualVit):
        model.fix_queries((side, side))
    return model


def shorten(graph):
    """Short names for nodes and values, which are half of such a file: the exporters' say where in the network they come from."""
    names = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    for index, weights in enumerate(graph.initializer):
        names[weights.name] = weights.name = f"w{index}"
    for index, node in enumerate(graph.node):
        names |= {name: f"n{index}_{place}" if place else f"n{index}" for place, name in enumerate(node.output) if name not in names}
        node.name, node.doc_string = f"n{index}", ""
        node.input[:], node.output[:] = ([names[name] for name in side] for side in (node.input, node.output))
        # The newer exporter writes the place in the sources, with this machine's paths.
        del node.metadata_props[:]
    for value in graph.value_info:
        value.name = names[value.name]
        del value.metadata_props[:]
    del graph.metadata_props[:]


def write(name, model, side, **options):
    path = HERE / f"{name}.onnx"
    export.to_onnx(model, (side, side), path, **options)
    file = onnx.load(path)
    shorten(file.graph)
    del file.metadata_props[:]
    onnx.checker.check_model(file, full_check=True)
    path.write_bytes(file.SerializeToString(deterministic=True))


def main():
    for name, (make, side, spellings) in NETWORKS.items():
        model = made(make, side)
        for suffix, options in spellings.items():
            keep = name in KEEP_BATCH_NORM and not options.get("dynamo", False)
            write(name + suffix, model, side, keep_batch_norm=keep, **options)


main()
