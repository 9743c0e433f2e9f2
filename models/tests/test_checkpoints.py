"""Reading weights: wrappers, keys, sizes, and what is said when they do not fit."""

import argparse

import numpy as np
import pytest
import reference
import timm
import torch
from safetensors.torch import save_file

from vitlet_models import checkpoints, dualvit, pvtv2, registry, swin
from vitlet_models.checkpoints import CheckpointError

PVT = pvtv2.Config(channels=(8, 16), depths=(1, 1), heads=(1, 2), mlp_ratios=(2, 2), reductions=(2, 1))
SWIN = swin.Config(8, (2, 2), (1, 2), window=4, side=64)


def pvt(classes=10, seed=0):
    model = pvtv2.PvtV2(PVT, classes, (32, 32)).eval()
    checkpoints.randomise(model, seed)
    return model


def same(left, right):
    states = left.state_dict(), right.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["bare", "model", "state_dict", "model.state_dict", "distributed"],
)
def test_wrappers(wrap, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(wrap(pvt(seed=1).state_dict()), path)
    model = pvt()
    checkpoints.load(model, checkpoints.read(path))
    assert same(model, pvt(seed=1))


def test_half(tmp_path):
    """What was computed stays out; what comes back is the weights, rounded."""
    model = swin.Swin(SWIN, 10).eval()
    checkpoints.randomise(model, 1)
    path = tmp_path / "half.pth"
    checkpoints.save_half(model.state_dict(), path)
    state = checkpoints.read(path)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert not any(checkpoints.is_computed(key) for key in state)
    again = swin.Swin(SWIN, 10).eval()
    checkpoints.load(again, state)
    for key, value in model.state_dict().items():
        expected = value if checkpoints.is_computed(key) else value.half().to(value.dtype)
        assert torch.equal(again.state_dict()[key], expected), key


def test_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(pvt(seed=1).state_dict(), path)
    model = pvt()
    checkpoints.load(model, checkpoints.read(path))
    assert same(model, pvt(seed=1))


def test_head_classes():
    assert checkpoints.head_classes(pvt(7).state_dict()) == 7
    assert checkpoints.head_classes({"head.fc.weight": torch.zeros(6, 4)}) == 6
    assert checkpoints.head_classes({}) is None


def test_unfitting_weights_are_all_listed():
    state = pvt(7).state_dict()
    del state["block1.0.attn.q.bias"]
    state["surprise"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        checkpoints.load(pvt(), state)
    for part in ("missing: block1.0.attn.q.bias", "unknown: surprise", "head.weight: 7x16 in the file, 10x16 here"):
        assert part in str(error.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"model": {"a": 1}}])
def test_no_state_dict(content, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="weights.pth: no state dict in it"):
        checkpoints.read(path)


def test_damaged_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="weights.pth: not a file of weights alone, or damaged"):
        checkpoints.read(path)
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoints.read(tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_timm_keys_of_pvtv2(name):
    with torch.device("meta"):
        theirs, ours = timm.create_model(name).state_dict(), registry.create(name).state_dict()
    assert checkpoints.to_official_keys(theirs).keys() == ours.keys()
    assert checkpoints.to_official_keys(ours).keys() == ours.keys()


def test_official_swin_file_with_its_buffers():
    """The index and masks of a file are those of the size it was trained at; the network's own stay."""
    theirs = swin.Swin(SWIN, 10)
    checkpoints.randomise(theirs, 1)
    ours = swin.Swin(SWIN, 10, (128, 128))
    masks = ours.layers[0].blocks[1].attn_mask.clone()
    checkpoints.load(ours, theirs.state_dict())
    assert torch.equal(ours.layers[0].blocks[1].attn_mask, masks)
    assert torch.equal(ours.layers[1].blocks[1].mlp.fc1.weight, theirs.layers[1].blocks[1].mlp.fc1.weight)


def test_bias_table_for_another_window():
    """Bicubic over both axes, head by head; the same size changes nothing."""
    table = torch.randn(49, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(checkpoints.resize_bias_table(table, 49), table)
    for rows in (25, 121):
        image = reference.to_map(table.numpy().astype(np.float64), 7, 7)
        expected = reference.to_tokens(reference.resize_bicubic(image, *[round(rows**0.5)] * 2))
        np.testing.assert_allclose(checkpoints.resize_bias_table(table, rows), expected, atol=1e-5)


def test_swin_of_another_window():
    theirs, ours = swin.Swin(SWIN, 10), swin.Swin(swin.replace(SWIN, window=8), 10, (128, 128))
    checkpoints.randomise(theirs, 1)
    checkpoints.load(ours, theirs.state_dict())
    table = theirs.layers[0].blocks[0].attn.relative_position_bias_table
    expected = checkpoints.resize_bias_table(table, 225)
    assert torch.equal(ours.layers[0].blocks[0].attn.relative_position_bias_table, expected)


def test_aux_head_is_left_out():
    config = dualvit.Config(4, (4, 4, 4, 4), (1, 1, 1, 1), (1, 1, 1, 1))
    with_aux, without = dualvit.DualVit(config, 10), dualvit.DualVit(config, 10, aux_head=False)
    checkpoints.load(without, with_aux.state_dict())
    assert torch.equal(without.head.weight, with_aux.head.weight)
    with pytest.raises(CheckpointError, match="missing: aux_head.weight"):
        checkpoints.load(with_aux, without.state_dict())


def test_random_weights_are_the_seed():
    assert same(pvt(seed=5), pvt(seed=5))
    assert not same(pvt(seed=5), pvt(seed=6))
