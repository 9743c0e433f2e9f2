"""Networks as ONNX files: static shape, batch of one, float32.

The input `image` is 1×3×H×W, RGB divided by 255 and normalised with ImageNet's mean and standard deviation; the output
`logits` is 1×classes.
"""

import warnings

import torch

from vitlet_models import checkpoints, registry
from vitlet_models.dualvit import DualVit

OPSET = 17


def to_onnx(model, input_size, path, opset=OPSET, dynamo=False, symbolic_batch=False, keep_batch_norm=False, external_data=False):
    """Writes one network. By default with PyTorch's classic exporter: it follows the code line by line, so the graph is
    predictable.

    `variants` has the other ways: `dynamo` is the newer exporter; a symbolic batch is called `batch`; batch norms are
    folded into convolutions unless they are kept (by the classic exporter only); `external_data` puts the weights into
    a file beside it (by the newer one only).
    """
    model.eval()
    # A size of 1 would be taken for a constant.
    image = torch.zeros(2 if symbolic_batch else 1, 3, *input_size)
    options = {"input_names": ["image"], "output_names": ["logits"], "opset_version": opset, "dynamo": dynamo}
    if dynamo:
        options |= {"external_data": external_data, "verbose": False}
        if symbolic_batch:
            options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    else:
        # Batch norm is folded in the mode EVAL alone; the network is in that mode either way.
        options["training"] = torch.onnx.TrainingMode.PRESERVE if keep_batch_norm else torch.onnx.TrainingMode.EVAL
        if symbolic_batch:
            options["dynamic_axes"] = {"image": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        # It says of itself that it is the old one, and of Python numbers that they are constants: they are to be.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # Of batch norm that is kept: constants may be folded all the same, as nothing is trained.
        warnings.filterwarnings("ignore", "It is recommended that constant folding", UserWarning)
        torch.onnx.export(model, (image,), str(path), **options)


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
