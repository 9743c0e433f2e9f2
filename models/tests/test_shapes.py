"""All twenty variants: keys, shapes, parameter counts and multiply-accumulates of the official code."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitlet_models import registry

# Specs sepvit §3, pvtv2 §3, swin §3, dualvit §3; Dual-ViT with its auxiliary head.
PARAMETERS = {
    "sepvit_lite": 3_661_128,
    "sepvit_tiny": 31_182_856,
    "sepvit_small": 46_570_504,
    "sepvit_base": 82_377_064,
    "pvt_v2_b0": 3_666_760,
    "pvt_v2_b1": 14_009_000,
    "pvt_v2_b2": 25_362_856,
    "pvt_v2_b2_li": 22_553_512,
    "pvt_v2_b3": 45_238_696,
    "pvt_v2_b4": 62_556_072,
    "pvt_v2_b5": 81_956_008,
    "swin_tiny_w7_224": 28_288_354,
    "swin_small_w7_224": 49_606_258,
    "swin_base_w7_224": 87_768_224,
    "swin_base_w12_384": 87_903_584,
    "swin_large_w7_224": 196_532_476,
    "swin_large_w12_384": 196_735_516,
    "dualvit_s": 25_054_000,
    "dualvit_b": 42_627_024,
    "dualvit_l": 72_966_544,
}
# 10⁹ multiply-accumulates of convolutions and matrix products, at the size trained at: specs sepvit §4, pvtv2 §4,
# swin §4, dualvit §4, which agree with the published numbers.
GMACS = {
    "sepvit_lite": 0.568,
    "sepvit_tiny": 4.519,
    "sepvit_small": 7.455,
    "sepvit_base": 13.055,
    "pvt_v2_b0": 0.566,
    "pvt_v2_b1": 2.108,
    "pvt_v2_b2": 4.027,
    "pvt_v2_b2_li": 3.889,
    "pvt_v2_b3": 6.897,
    "pvt_v2_b4": 10.101,
    "pvt_v2_b5": 11.717,
    "swin_tiny_w7_224": 4.491,
    "swin_small_w7_224": 8.741,
    "swin_base_w7_224": 15.431,
    "swin_base_w12_384": 47.08,
    "swin_large_w7_224": 34.48,
    "swin_large_w12_384": 103.9,
    "dualvit_s": 5.377,
    "dualvit_b": 9.292,
    "dualvit_l": 17.96,
}
# Our own small variants, of which nothing is published: what their cards say.
REDUCED_PARAMETERS = {"swin_nano_w7_224": 2_285_048, "dualvit_nano": 2_597_572}
# The same at 384×384.
GMACS_384 = {"dualvit_s": 18.38, "dualvit_b": 31.78, "dualvit_l": 60.32}
WITHOUT_AUX_HEAD = {"dualvit_s": 24_605_000, "dualvit_b": 42_114_024, "dualvit_l": 72_453_544}


def create(name, **options):
    """The network without memory for its weights."""
    with torch.device("meta"):
        return registry.create(name, **options)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def gmacs(model, size):
    """Counted by PyTorch while it runs without data."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size, device="meta"))
    # A multiply-accumulate is two of its operations.
    return counter.get_total_flops() / 2e9


def entries(model):
    """(kind, key, shape) of the whole state dict, as the lists have it."""
    parameters = dict(model.named_parameters())
    return {
        ("param" if key in parameters else "buffer", key, "x".join(map(str, value.shape)) or "scalar")
        for key, value in model.state_dict().items()
    }


def test_names():
    assert registry.names() == list(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    assert count(create(name)) == PARAMETERS[name]


def test_reduced():
    assert registry.reduced() == list(REDUCED_PARAMETERS)
    assert {name: count(create(name, classes=10)) for name in registry.reduced()} == REDUCED_PARAMETERS


@pytest.mark.parametrize("name", GMACS)
def test_macs(name):
    assert gmacs(create(name), registry.default_input_size(name)) == pytest.approx(GMACS[name], rel=1e-3)


@pytest.mark.parametrize("name", GMACS_384)
def test_macs_at_384(name):
    assert gmacs(create(name, input_size=(384, 384)), (384, 384)) == pytest.approx(GMACS_384[name], rel=1e-3)


@pytest.mark.parametrize("name", WITHOUT_AUX_HEAD)
def test_parameter_count_without_aux_head(name):
    assert count(create(name, aux_head=False)) == WITHOUT_AUX_HEAD[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_keys_and_shapes(name, shapes_folder):
    lines = (shapes_folder / f"{name}.tsv").read_text().splitlines()
    listed = [tuple(line.split("\t")) for line in lines if line and not line.startswith("#")]
    assert len(set(listed)) == len(listed) > 100
    assert entries(create(name)) == set(listed)


def test_every_list_has_its_model(shapes_folder):
    assert sorted(file.stem for file in shapes_folder.glob("*.tsv")) == sorted(registry.names())


def test_classes():
    assert create("pvt_v2_b0", classes=6).head.weight.shape == (6, 256)
    model = create("dualvit_s", classes=6)
    assert model.head.weight.shape == model.aux_head.weight.shape == (6, 448)


def test_unknown_name():
    with pytest.raises(registry.UnknownModelError, match="no model is called 'swin'.*swin_tiny_w7_224"):
        registry.create("swin")


def test_only_dualvit_has_an_aux_head():
    with pytest.raises(ValueError, match="only Dual-ViT"):
        registry.create("sepvit_lite", aux_head=False)
