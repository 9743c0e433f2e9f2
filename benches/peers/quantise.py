"""Quantise an ONNX file with ONNX Runtime's own tools, as its documentation recommends for CPUs with int8 instructions.

    python quantise.py MODEL.onnx OUT.onnx IMAGES

First `quant_pre_process` (shape inference and the optimisations that come before quantising), then `quantize_static`: QDQ, per-channel
s8 weights, u8 activations, ranges by minimum and maximum over the `.f32` files of the folder IMAGES, which `peer-image` wrote. All else
is left at its default.
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Images(CalibrationDataReader):
    """The calibration images, one after the other."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.name = onnx.load(model).graph.input[0].name
        self.files = iter(sorted(folder.glob("*.f32")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        file = next(self.files, None)
        if file is None:
            return None
        values = np.fromfile(file, dtype="<f4")
        side = math.isqrt(values.size // 3)
        return {self.name: values.reshape(1, 3, side, side)}


def main(model: Path, out: Path, images: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared)
        quantize_static(
            prepared,
            out,
            Images(model, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
