"""Modules and inputs that tests compare with reference.py."""

import torch
from reference import Weights

from vitlet_models.checkpoints import randomise


def made(module, seed=0):
    """The module in f64 with random weights, and those weights."""
    module = module.double().eval()
    randomise(module, seed)
    return module, Weights.of(module)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
