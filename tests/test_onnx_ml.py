"""Classical models of ai.onnx.ml beside onnxruntime."""

import duograd as dg
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

LABELS = {"classlabels_ints": [5, 6, 7]}
X = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")


def row(n, seed=0):
    return [float(v) for v in np.random.default_rng(seed).normal(size=n)]


def trees(votes, seed=0, **options):
    """Three full trees of depth two, as attributes; votes: the targets that every leaf votes for."""
    rng = np.random.default_rng(seed)
    every = [(t, k) for t in range(3) for k in range(7)]
    leaves = [(t, k, v) for t, k in every if k >= 3 for v in votes]
    kind = "class" if "classlabels_int64s" in options else "target"
    weights = [float(w) for w in rng.uniform(0, 0.4, len(leaves))]
    return {
        "nodes_treeids": [t for t, _ in every], "nodes_nodeids": [k for _, k in every],
        "nodes_featureids": [int(f) for f in rng.integers(0, 4, len(every))],
        "nodes_values": [float(v) for v in rng.normal(size=len(every))],
        "nodes_modes": ["LEAF" if k >= 3 else ("BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT")[k] for _, k in every],
        "nodes_truenodeids": [0 if k >= 3 else 2 * k + 1 for _, k in every],
        "nodes_falsenodeids": [0 if k >= 3 else 2 * k + 2 for _, k in every],
        f"{kind}_treeids": [t for t, _, _ in leaves], f"{kind}_nodeids": [k for _, k, _ in leaves],
        f"{kind}_ids": [v for _, _, v in leaves], f"{kind}_weights": weights, **options,
    }  # fmt: skip


SVM = {
    "coefficients": row(14), "support_vectors": row(28, 1), "vectors_per_class": [2, 3, 2], "rho": [0.2, 0.1, -0.3],
    "kernel_type": "RBF", "kernel_params": [0.3, 0.1, 2.0], **LABELS,
}  # fmt: skip
CASES = {
    "linear regression": ("LinearRegressor", 1, {"coefficients": row(8), "intercepts": [0.4, 0.5], "targets": 2}),
    "linear, softmax": (
        "LinearClassifier", 2, {"coefficients": row(12), "post_transform": "SOFTMAX", "intercepts": row(3), **LABELS}),
    "linear, one row": (
        "LinearClassifier", 2, {"coefficients": row(4), "classlabels_strings": ["no", "yes"],
                                "post_transform": "LOGISTIC", "intercepts": [0.1]}),
    "support vector regression": (
        "SVMRegressor", 1, {"coefficients": row(5), "support_vectors": row(20, 1), "n_supports": 5, "rho": [0.2],
                            "kernel_type": "POLY", "kernel_params": [0.3, 0.1, 2.0]}),
    "support vectors": ("SVMClassifier", 2, SVM),
    "support vectors, probabilities": (
        "SVMClassifier", 2, {**SVM, "prob_a": [-0.5, -0.6, -0.7], "prob_b": [0.1, 0.2, 0.3]}),
    "trees, sum": ("TreeEnsembleRegressor", 1, trees([0, 1], n_targets=2, base_values=[0.5, 1.0])),
    "trees, least": ("TreeEnsembleRegressor", 1, trees([0], n_targets=1, aggregate_function="MIN")),
    "trees, classes": ("TreeEnsembleClassifier", 2, trees([0, 1, 2], classlabels_int64s=[7, 8, 9])),
    "trees, one vote": (
        "TreeEnsembleClassifier", 2, trees([0], classlabels_int64s=[0, 1], post_transform="LOGISTIC")),
    "scaling": ("Scaler", 1, {"offset": row(4), "scale": row(4, 1)}),
    "norm": ("Normalizer", 1, {"norm": "L1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_model_gives_what_onnxruntime_gives(name):
    op, outputs, attributes = CASES[name]
    node = helper.make_node(op, ["x"], ["a", "b"][:outputs], domain="ai.onnx.ml", **attributes)
    kinds = [
        TensorProto.STRING if "classlabels_strings" in attributes else TensorProto.INT64,
        TensorProto.FLOAT,
    ]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(n, k, None) for n, k in zip(node.output, kinds[-outputs:])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = dg.onnx.load(model)(dg.tensor(X))
    for got, want in zip([found] if outputs == 1 else found, session.run(None, {"x": X}), strict=True):
        if want.dtype.kind in "OU":
            assert got.numpy().tolist() == want.tolist()
        else:
            assert got.shape == want.shape
            # onnxruntime couples class probabilities by a few steps of an iteration
            np.testing.assert_allclose(
                got.detach().numpy(), want, rtol=1e-4, atol=2e-3 if "prob" in name else 1e-5
            )
