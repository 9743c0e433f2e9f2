"""Exported files: names, shapes, operator set, and what they compute."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from vitlet_models import dualvit, export, pvtv2, sepvit, swin
from vitlet_models.checkpoints import images, randomise

PVT = {"channels": (8, 16), "depths": (1, 1), "heads": (1, 2), "mlp_ratios": (2, 2)}
DUAL = dualvit.Config(4, (8, 8, 8, 8), (1, 1, 2, 1), (1, 2, 2, 2))

TINY = {
    "pvtv2": (lambda: pvtv2.PvtV2(pvtv2.Config(**PVT, reductions=(2, 1)), 10, (32, 40)), (32, 40)),
    # Maps of 14×14 and 7×7.
    "pvtv2 linear": (lambda: pvtv2.PvtV2(pvtv2.Config(**PVT, linear=True), 10, (56, 56)), (56, 56)),
    "swin": (lambda: swin.Swin(swin.Config(8, (2, 2), (1, 2), window=4, side=32), 10), (32, 32)),
    "sepvit": (lambda: sepvit.SepVit(sepvit.Config((8, 16), (1, 2), ((4,), (2, 4)), side=32), 10, (32, 32)), (32, 32)),
    "dualvit": (lambda: dualvit.DualVit(DUAL, 10, (64, 64)), (64, 64)),
    "dualvit without aux": (lambda: dualvit.DualVit(DUAL, 10, (64, 64), aux_head=False), (64, 64)),
}


def shape(value):
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("name", TINY)
def test_tiny(name, opset, tmp_path):
    make, size = TINY[name]
    model, path = make().eval(), tmp_path / "tiny.onnx"
    randomise(model, 0)
    if isinstance(model, dualvit.DualVit):
        model.fix_queries(size)
    export.to_onnx(model, size, path, opset)

    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [entry.version for entry in file.opset_import if entry.domain in ("", "ai.onnx")] == [opset]
    assert [(value.name, shape(value)) for value in file.graph.input] == [("image", [1, 3, *size])]
    assert [(value.name, shape(value)) for value in file.graph.output] == [("logits", [1, 10])]
    kinds = {node.op_type for node in file.graph.node}
    assert not kinds & {"Shape", "ConstantOfShape", "Expand", "Tile", "Where", "Resize", "If", "Loop"}
    assert ("LayerNormalization" in kinds) == (opset >= 17)

    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(image).numpy()
    got = ReferenceEvaluator(file).run(None, {"image": image.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", TINY)
def test_symbolic_batch(name, dynamo, tmp_path):
    """Three images at once are three times one, by both exporters."""
    make, size = TINY[name]
    model, path = make().eval(), tmp_path / "tiny.onnx"
    randomise(model, 0)
    export.to_onnx(model, size, path, 18, dynamo=dynamo, symbolic_batch=True)
    file = onnx.load(path)
    assert file.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    image = images(3, size, 1)
    with torch.no_grad():
        expected = np.concatenate([model(image[i : i + 1]).numpy() for i in range(3)])
    got = ReferenceEvaluator(file).run(None, {"image": image.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_batch_norm(tmp_path):
    """Folded into the stem's convolutions, unless it is kept."""
    make, size = TINY["dualvit"]
    model, path = make().eval(), tmp_path / "tiny.onnx"
    model.fix_queries(size)
    for keep, count in ((False, 0), (True, 3)):
        export.to_onnx(model, size, path, keep_batch_norm=keep)
        assert sum(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node) == count


def run(*arguments):
    """The command line, its status and what it printed."""
    done = subprocess.run([sys.executable, "-m", "vitlet_models", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_command(tmp_path):
    """Weights from a file give the classes; the same seed gives the same file."""
    weights, first, second = tmp_path / "weights.pth", tmp_path / "a.onnx", tmp_path / "b.onnx"
    model, _ = export.prepare("pvt_v2_b0", classes=6, seed=4)
    torch.save({"model": model.state_dict()}, weights)
    status, out, err = run("export", "pvt_v2_b0", "-o", first, "--checkpoint", weights, "--input", "64x96")
    assert status == 0, err
    assert "a.onnx: pvt_v2_b0, 3,411,302 parameters, input 64x96, 6 classes, opset 17" in out
    status, _, err = run("export", "pvt_v2_b0", "-o", second, "--classes", 6, "--seed", 4, "--input", "64x96")
    assert status == 0, err
    assert first.read_bytes() == second.read_bytes()
    assert shape(onnx.load(first).graph.input[0]) == [1, 3, 64, 96]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swin_t",), "error: no model is called 'swin_t'"),
        (("sepvit_lite", "--input", "256"), "error: input 256x256: SepViT runs at 224x224 only"),
        (("pvt_v2_b2_li", "--input", "256"), "error: input 256x256: the linear form pools"),
        (("pvt_v2_b0", "--no-aux-head"), "error: pvt_v2_b0: only Dual-ViT has an auxiliary head"),
        (("pvt_v2_b0", "--checkpoint", "absent.pth"), "error: absent.pth: no such file"),
        (("pvt_v2_b0", "--input", "big"), "'big': a side in pixels"),
        (("pvt_v2_b0", "--classes", "0"), "'0': a whole number from 1 up"),
    ],
)
def test_mistakes(arguments, message, tmp_path):
    status, _, err = run("export", *arguments, "-o", tmp_path / "x.onnx")
    assert status != 0
    assert message in err
    assert "Traceback" not in err


def test_list():
    status, out, _ = run("list")
    assert status == 0
    published, reduced = out.split("\n\n")
    assert (len(published.splitlines()), len(reduced.splitlines())) == (21, 2)
    assert "sepvit_lite          SepViT      3,661,128  224x224" in out
