"""The network families that vitlet runs, written from their descriptions, their export to ONNX, and their training.

Nothing here is needed to run vitlet, or to build or test it: this package makes `.onnx` files, and the compiler
(`vitlet compile`) takes `.onnx` files from anywhere.

| module        | holds                                                                      |
|---------------|----------------------------------------------------------------------------|
| `sepvit`      | SepViT (arXiv 2203.15380)                                                  |
| `pvtv2`       | PVTv2 (arXiv 2106.13797)                                                   |
| `swin`        | Swin Transformer, first version (arXiv 2103.14030)                         |
| `dualvit`     | Dual-ViT (arXiv 2207.04976)                                                |
| `layers`      | what more than one of them is made of                                      |
| `registry`    | every variant by name                                                      |
| `checkpoints` | weights from the official releases, timm and torchvision, or random ones   |
| `export`      | ONNX files                                                                 |
| `variants`    | the files a compiler is tried on: other packages, exporters, operator sets |
| `data`        | photos for training, and how they are varied                               |
| `train`       | training on two cores                                                      |

Docstrings say where each fact comes from. "spec" is the project's own description of a family: what the official code
does, with its commit, in words. The definitions were written from those, not from any implementation.
State-dict keys are the official code's.

The networks are written for inference: `train` adds stochastic depth from outside, other dropout they have none.
"""

from vitlet_models.registry import create, names

__all__ = ["create", "names"]
