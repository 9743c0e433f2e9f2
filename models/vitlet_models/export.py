"""Networks as ONNX files: static shape, batch of one, float32.

The input `image` is 1×3×H×W, RGB divided by 255 and normalised with ImageNet's mean and standard deviation; the output
`logits` is 1×classes.
"""

import warnings

import torch

from vitlet_models import checkpoints, registry
from vitlet_models.dualvit import DualVit

OPSET = 17


def to_onnx(model, input_size, path, opset=OPSET):
    """Writes one network. PyTorch's classic exporter: it follows the code line by line, so the graph is predictable."""
    model.eval()
    image = torch.zeros(1, 3, *input_size)
    with warnings.catch_warnings():
        # It says of itself that it is the old one, and of Python numbers that they are constants: they are to be.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(model, (image,), str(path), input_names=["image"], output_names=["logits"], opset_version=opset, dynamo=False)


def prepare(name, checkpoint=None, input_size=None, classes=None, seed=0, aux_head=True):
    """The network as it is exported, and its input size.

    Weights come from the checkpoint, which also says how many classes there are unless `classes` does; without one,
    from the seed.
    """
    _, module, _, config = registry.find(name)
    input_size = input_size or registry.default_input_size(name)
    module.check_export(config, input_size)
    state = checkpoints.read(checkpoint) if checkpoint else None
    classes = classes or (checkpoints.head_classes(state) if state else None) or 1000
    model = registry.create(name, classes, input_size, aux_head)
    if state is None:
        checkpoints.randomise(model, seed)
    else:
        checkpoints.load(model, state)
    if isinstance(model, DualVit):
        # Resizing them is no part of the network at one input size.
        model.fix_queries(input_size)
    return model, input_size
