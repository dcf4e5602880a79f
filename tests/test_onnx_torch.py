"""A slice of `duograd.bench.onnx_torch`: what torch.onnx exports is imported and agrees, gradients too."""

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch", reason="PyTorch is not installed: its exports are not imported")
from duograd.bench.onnx_torch import compare, has_dynamo  # noqa: E402
from duograd.bench.onnx_torch_models import MODELS  # noqa: E402

SCRIPT = {"resnext": 13, "unet": 17, "gpt": 17, "lstm": 20, "yolo": 14, "transposed_3d": 20, "experts": 17}
DYNAMO = {"mlp_norms": 20}


def test_there_are_forty_architectures():
    assert len(MODELS) >= 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCRIPT)
def test_export_by_the_older_exporter_agrees(name):
    assert compare(name, "script", SCRIPT[name]) > 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    not has_dynamo(), reason="onnxscript is not installed: torch's newer exporter is not tried"
)
@pytest.mark.parametrize("name", DYNAMO)
def test_export_by_the_newer_exporter_agrees(name):
    assert compare(name, "dynamo", DYNAMO[name]) > 1
