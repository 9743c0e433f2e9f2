"""PVTv2 against timm's, with the same weights; in f64, where an epsilon shows."""

import pytest
import timm
import torch

from vitlet_models import pvtv2, registry
from vitlet_models.checkpoints import load, randomise
from vitlet_models.layers import InputSizeError


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("pvt_v2_b0", (224, 224)),
        # Maps of 48×40, 24×20, 12×10, 6×5: the reduction leaves a remainder out.
        ("pvt_v2_b0", (192, 160)),
        # Odd maps, and the smallest input there is.
        ("pvt_v2_b0", (29, 45)),
        ("pvt_v2_b2_li", (224, 224)),
        ("pvt_v2_b2_li", (192, 160)),
        ("pvt_v2_b5", (64, 64)),
        ("pvt_v2_b3", (224, 224)),
    ],
)
@torch.no_grad()
def test_equals_timm(name, size):
    theirs = timm.create_model(name).double().eval()
    randomise(theirs, seed=3)
    ours = registry.create(name, input_size=size).double()
    load(ours, theirs.state_dict())
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = theirs(image)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours(image), expected, rtol=0, atol=1e-9)


def test_too_small():
    with pytest.raises(InputSizeError, match="input 28x64: stage 1's map is 7x16.*29 pixels a side or more"):
        registry.create("pvt_v2_b0", input_size=(28, 64))


def test_linear_form_exports_whole_cells_only():
    config = pvtv2.CONFIGS["pvt_v2_b2_li"]
    pvtv2.check_export(config, (224, 448))
    with pytest.raises(InputSizeError, match="multiples of 224"):
        pvtv2.check_export(config, (256, 256))
    pvtv2.check_export(pvtv2.CONFIGS["pvt_v2_b2"], (256, 256))
