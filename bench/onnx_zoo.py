"""The nine image networks that the onnx wheel carries, whose files leave the weights out: drawn here, from a seed.

Names: `onnx_alexnet`, `onnx_resnet50`, ...; `model(name)` gives the ModelProto. Only duograd and onnxruntime run them.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .case import Arrays, Case, generator

FILES = {
    f"onnx_{name.removeprefix('bvlc_')}": name
    for name in (
        "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
        "zfnet512",
    )
}  # fmt: skip
SIDE = 224


def _file(name: str) -> Path:
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{FILES[name]}.onnx"


def _draw(rng: np.random.Generator, op: str, place: int, shape: tuple[int, ...], size: float) -> np.ndarray:
    """Weights by He's rule; of norms near `size` and 0, so that a wrong one shows."""
    if len(shape) > 1 and op in ("Conv", "Gemm", "Reshape"):
        fan_in = math.prod(shape[1:])
        return (rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_in))).astype(np.float32)
    variance = op == "BatchNormalization" and place == 4
    scale = (op == "BatchNormalization" and place == 1) or (op == "Mul" and place == 1)
    drawn = rng.uniform(0.5, 1.5, shape) if variance else rng.uniform(-0.1, 0.1, shape) + scale * size
    return drawn.astype(np.float32)


def model(name: str, hidden: int | None = None) -> onnx.ModelProto:
    """A network with weights. hidden: at most so many features between its last layers, for quick tests."""
    proto = onnx.load(_file(name))
    graph = proto.graph
    shapes = {
        t.name: tuple(map(int, numpy_helper.to_array(t))) for t in graph.initializer if t.data_type == 7
    }
    users: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        if node.op_type != "Unsqueeze":
            for place, value in enumerate(node.input):
                users.setdefault(value, (node.op_type, place))
    for node in graph.node:  # what factors are for shows behind their Unsqueeze
        if node.op_type == "Unsqueeze":
            users.setdefault(node.input[0], users.get(node.output[0], ("", 0)))
    size = (
        0.5 if any(n.op_type == "Sum" for n in graph.node) else 1.0
    )  # sums of branches would grow without end
    rng, kept, features = generator(), [], {}
    gemms = [n for n in graph.node if n.op_type == "Gemm"]
    if hidden is not None:
        makers = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "ConstantOfShape"}
        for k, gemm in enumerate(gemms[:-1]):
            features[makers[gemm.input[1]]] = (hidden, 0)
            features[makers[gemm.input[2]]] = (hidden, 0)
            features[makers[gemms[k + 1].input[1]] + " in"] = (hidden, 1)
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None:
            kept.append(node)
            continue
        sizes = list(shape)
        for key in (node.input[0], node.input[0] + " in"):
            if key in features:
                sizes[features[key][1]] = features[key][0]
        array = _draw(rng, *users.get(node.output[0], ("", 0)), tuple(sizes), size)
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    given = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in given]
    del graph.input[:]
    graph.input.extend(inputs)
    read = {value for node in kept for value in node.input}
    used = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
    proto.ir_version = 8
    return proto


def image() -> Arrays:
    """One image."""
    return {"x": generator().normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)}


CASES = [
    Case(name, ("infer",), image, dict, "", {}, {}, f"{FILES[name]} of the onnx wheel, one image")
    for name in FILES
]


def difference(name: str, hidden: int | None = None) -> tuple[float, bool]:
    """The largest difference to onnxruntime, relative to its largest output; whether both modes give the same bits."""
    import duograd as dg
    import onnxruntime as ort

    proto, x = model(name, hidden), image()["x"]
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, {session.get_inputs()[0].name: x})[0]
    module = dg.onnx.load(proto)
    with dg.no_grad():
        eager = module(dg.tensor(x)).numpy()
        graph = dg.function(module)(dg.tensor(x)).numpy()
    return float(np.abs(eager - want).max() / np.abs(want).max()), bool(np.array_equal(eager, graph))


if __name__ == "__main__":
    for chosen in FILES:
        far, same = difference(chosen)
        print(
            f"{chosen:20s} largest difference to onnxruntime {far:.1e}, modes {'equal' if same else 'DIFFER'}"
        )
