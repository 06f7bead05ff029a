"""An insightface pack with tiny networks: the true files, inputs, outputs and order of outputs.

As in buffalo_l: `det_10g.onnx` (scores, boxes and landmarks of strides 8, 16 and 32, two anchors
a cell), `w600k_r50.onnx` (aligned crop to 512 numbers), and the landmark and attribute models
that a pack holds besides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
ANCHORS = 2
# Five points around a cell's centre, in strides: a face that fills about five cells.
POINTS = np.array([[-0.9, -0.8], [0.9, -0.8], [0.0, 0.1], [-0.7, 1.0], [0.7, 1.0]])


def make_pack(folder: Path, seed: int = 0) -> Path:
    """Write the pack; equal seeds give equal files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    _save(folder / "det_10g.onnx", *_detector(rng))
    _save(folder / "w600k_r50.onnx", *_network(rng, 112, 512, "683"))
    for name, size, length in (
        ("1k3d68", 192, 3309), ("2d106det", 192, 212), ("genderage", 96, 3)
    ):
        _save(folder / f"{name}.onnx", *_network(rng, size, length, "fc1"))
    return folder


def weights(path: Path) -> dict[str, np.ndarray]:
    """The constants of a model by name."""
    model = onnx.load(str(path))
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def _detector(rng: np.random.Generator) -> tuple[list, list, list, list]:
    """Each stride: one convolution a head. White cells are faces; boxes depend on the picture."""
    nodes, constants, outputs = [], [], []
    for head, length in (("score", 1), ("box", 4), ("points", 10)):
        for stride in STRIDES:
            name = f"{head}{stride}"
            shape = (ANCHORS * length, 3, stride, stride)
            if head == "score":
                # Of a cell x in -1..1: positive where it is nearly white, in one stride alone.
                weight = np.full(shape, 12 / (3 * stride * stride))
                bias = np.array([-9.0, -11.0]) if stride == 32 else np.full(2, -20.0)
            else:
                weight = rng.normal(0, 0.02 / stride, shape)
                one = np.full(4, 2.5) if head == "box" else POINTS.ravel()
                bias = np.tile(one, ANCHORS)
            constants += [_constant(f"{name}.weight", weight), _constant(f"{name}.bias", bias)]
            constants.append(numpy_helper.from_array(np.array([-1, length]), f"{name}.shape"))
            nodes += [
                helper.make_node(
                    "Conv", ["input.1", f"{name}.weight", f"{name}.bias"], [f"{name}.map"],
                    kernel_shape=[stride, stride], strides=[stride, stride],
                ),
                helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"],
                                 perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}.last", f"{name}.shape"],
                                 [f"{name}.rows" if head == "score" else name]),
            ]
            if head == "score":
                nodes.append(helper.make_node("Sigmoid", [f"{name}.rows"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", length]))
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "?", "?"])
    return nodes, constants, [picture], outputs


def _network(
    rng: np.random.Generator, size: int, length: int, output: str
) -> tuple[list, list, list, list]:
    """A convolution, PReLU, a linear layer and a norm."""
    side = size // 16
    constants = [
        _constant("conv.weight", rng.normal(0, 0.05, (6, 3, 16, 16))),
        _constant("conv.bias", rng.normal(0, 0.1, 6)),
        _constant("slope", rng.uniform(0, 0.5, (6, 1, 1))),
        _constant("fc.weight", rng.normal(0, 0.1, (length, 6 * side * side))),
        _constant("fc.bias", rng.normal(0, 0.1, length)),
    ]
    nodes = [
        helper.make_node("Conv", ["input.1", "conv.weight", "conv.bias"], ["map"],
                         kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("PRelu", ["map", "slope"], ["bent"]),
        helper.make_node("Flatten", ["bent"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], [output], transB=1),
    ]
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, size, size])
    vector = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["None", length])
    return nodes, constants, [picture], [vector]


def _constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def _save(path: Path, nodes: list, constants: list, inputs: list, outputs: list) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
