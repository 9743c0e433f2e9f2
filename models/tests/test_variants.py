"""The files that a compiler is tried on: their list, and one of them written."""

import onnx
import torch
from test_export import run
from torch import nn

from vitlet_models import checkpoints, registry, variants


def test_files():
    """Every network of this package is there, names are not given twice, and plain forms come first."""
    entries = variants.files()
    names = [name for name, _, _ in entries]
    assert len(set(names)) == len(names)
    assert {f"{name}.onnx" for name in registry.names()} <= set(names)
    plain = [form == variants.Form() for _, _, form in entries]
    assert plain == sorted(plain, reverse=True)


def test_run(tmp_path):
    """A pattern chooses; the index lists what is there; what is there is kept."""
    out = tmp_path / "new"
    status, printed, err = run("variants", "--out", out, "pvt_v2_b0-opset1[0-9]", "pvt_v2_b0_192x256")
    assert status == 0, err
    assert sorted(path.name for path in out.iterdir()) == ["INDEX.tsv", "pvt_v2_b0-opset13.onnx", "pvt_v2_b0_192x256.onnx"]
    assert (out / "INDEX.tsv").read_text().splitlines() == [
        "file\tsource\texporter\topset\toptions",
        "pvt_v2_b0_192x256.onnx\tvitlet_models pvt_v2_b0, seed 0\ttorchscript\t17\tinput 192x256",
        "pvt_v2_b0-opset13.onnx\tvitlet_models pvt_v2_b0, seed 0\ttorchscript\t13\t",
    ]
    assert onnx.load(out / "pvt_v2_b0-opset13.onnx").opset_import[0].version == 13
    status, printed, _ = run("variants", "--out", out, "pvt_v2_b0_192x256")
    assert status == 0
    assert "is there" in printed


def test_mistakes(tmp_path):
    for arguments, message in ((("--list", "swin_x*"), "no file matches swin_x*"), ((), "where to?")):
        status, _, err = run("variants", *arguments)
        assert status != 0
        assert message in err
        assert "Traceback" not in err


def test_settle():
    """Images reach what follows a batch norm with the mean and the variance that its weights say."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    checkpoints.randomise(model, 0)
    checkpoints.settle(model, (32, 32), 5)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        out = model(checkpoints.images(8, (32, 32), 5))
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), model[4].bias.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 2, 3)), model[4].weight.detach(), atol=0, rtol=0.02)
