"""Whole models: out with dynamic axes, the same numbers in other runtimes, back as modules that train."""

import math

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import duograd as dg  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

nn = dg.nn


class Block(nn.Module):
    """A transformer block with a causal mask, over token numbers."""

    def __init__(self, d=8, heads=2, length=64):
        self.heads, self.scale = heads, 1 / math.sqrt(d // heads)
        self.embed = nn.Embedding(10, d)
        self.position = nn.Parameter(dg.randn(length, d) * 0.1)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.norms = nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)])
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.drop = nn.Dropout(0.1)

    def forward(self, ids):
        b, t = ids.shape
        x = self.embed(ids) + self.position[:t]
        d = x.shape[-1]
        q, k, v = (
            u.reshape(b, t, self.heads, d // self.heads).permute(0, 2, 1, 3)
            for u in self.qkv(self.norms[0](x)).split(d, axis=-1)
        )
        place = dg.arange(t)
        scores = dg.where(place.reshape(t, 1) >= place, (q @ k.mT) * self.scale, -1e9)
        mixed = (scores.softmax(axis=-1) @ v).permute(0, 2, 1, 3).reshape(b, t, d)
        x = x + self.drop(self.out(mixed))
        return x + self.down(dg.gelu(self.up(self.norms[1](x))))


class WithBuffer(nn.Module):
    """A linear layer on inputs that buffers standardise."""

    def __init__(self):
        self.register_buffer("mean", dg.tensor(np.array([1.0, 2.0, 3.0, 4.0], "float32")))
        self.scale = nn.Parameter(dg.tensor(2.0))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc((x - self.mean) * self.scale)


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), nn.Softmax(-1))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.GELU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def floats(*shape):
    return dg.tensor(np.random.default_rng(1).uniform(-1, 1, shape).astype("float32"))


def tokens(*shape):
    return dg.tensor(np.random.default_rng(1).integers(0, 10, shape))


MODELS = {
    "mlp": (mlp, floats, (2, 4), {0: "batch"}, [(1, 4), (7, 4)]),
    "cnn": (cnn, floats, (2, 1, 8, 8), {0: "batch"}, [(1, 1, 8, 8), (7, 1, 8, 8)]),
    "block": (Block, tokens, (2, 5), {0: "batch", 1: "time"}, [(1, 1), (7, 3), (1, 40)]),
    "buffer": (WithBuffer, floats, (2, 4), {0: "batch"}, [(1, 4), (7, 4)]),
}


def exported(name, **options):
    make, data, shape, axes, others = MODELS[name]
    model = make().eval()
    x = data(*shape)
    input_name = "ids" if name == "block" else "x"
    proto = dg.onnx.export(model, x, dynamic={input_name: axes}, **options)
    return model, proto, x, [data(*s) for s in others], input_name


@pytest.mark.parametrize("name", MODELS)
def test_export_agrees_at_sizes_it_never_saw(name, close):
    model, proto, _, others, input_name = exported(name)
    evaluator = ReferenceEvaluator(proto)
    for x in others:
        close(evaluator.run(None, {input_name: x.numpy()})[0], model(x).detach().numpy(), scale=10)


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_agrees(name, close):
    runtime = pytest.importorskip("onnxruntime")
    model, proto, _, others, input_name = exported(name)
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for x in others:
        close(session.run(None, {input_name: x.numpy()})[0], model(x).detach().numpy(), scale=10)


@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_predicts_the_same_in_both_modes(name, close):
    model, proto, x, others, _ = exported(name)
    loaded = dg.onnx.load(proto)
    compiled = dg.function(loaded)
    for value in (x, *others):
        want = model(value).detach().numpy()
        close(loaded(value).detach().numpy(), want)
        close(compiled(value).detach().numpy(), want)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_keep_their_names_and_kinds(name):
    model, proto, *_ = exported(name)
    loaded = dg.onnx.load(proto)
    assert sorted(n for n, _ in loaded.named_parameters()) == sorted(n for n, _ in model.named_parameters())
    assert sorted(n for n, _ in loaded.named_buffers()) == sorted(n for n, _ in model.named_buffers())
    assert loaded.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_the_loaded_model_equal_the_originals(name, close):
    model, proto, x, _, _ = exported(name)
    loaded = dg.onnx.load(proto)
    for m in (model, loaded):
        (m(x) * 1.5).sum().backward()
    originals = dict(model.named_parameters())
    for path, p in loaded.named_parameters():
        close(p.grad.numpy(), originals[path].grad.numpy())


@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_goes_out_again(name, close):
    model, proto, x, others, input_name = exported(name)
    axes = MODELS[name][3]
    again = dg.onnx.export(dg.onnx.load(proto), x, dynamic={input_name: axes})
    assert {t.name for t in again.graph.initializer} == {t.name for t in proto.graph.initializer}
    assert [o.name for o in again.graph.output] == [o.name for o in proto.graph.output]
    evaluator = ReferenceEvaluator(again)
    for value in others:
        close(evaluator.run(None, {input_name: value.numpy()})[0], model(value).detach().numpy(), scale=10)


def test_fine_tuning_follows_the_original_step_by_step(close):
    model, proto, x, _, _ = exported("cnn")
    loaded = dg.onnx.load(proto)
    target = dg.tensor(np.array([1, 3]))
    losses = []
    for m in (model, loaded):
        m.train()
        optimizer = dg.optim.SGD(m.parameters(), lr=0.1)

        @dg.function
        def step(x, y, m=m, optimizer=optimizer):
            optimizer.zero_grad()
            loss = dg.cross_entropy(m(x), y)
            loss.backward()
            optimizer.step()
            return loss

        losses.append([step(x, target).item() for _ in range(4)])
    close(np.array(losses[1], "float32"), np.array(losses[0], "float32"))
    assert losses[0][-1] < losses[0][0]


def test_dropout_of_a_loaded_model_works_in_training_mode():
    def drop(x):
        return dg.dropout(x, p=0.5, training=False)

    loaded = dg.onnx.load(dg.onnx.export(drop, floats(50)))
    x = floats(50)
    np.testing.assert_array_equal(loaded(x).numpy(), x.numpy())
    assert 5 < (loaded.train()(x).numpy() == 0).sum() < 45


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 23])
def test_block_goes_out_in_old_and_new_opsets(opset):
    _, proto, *_ = exported("block", opset=opset)
    kinds = {n.op_type for n in proto.graph.node}
    assert ("LayerNormalization" in kinds) == (opset >= 17)
    assert ("Gelu" in kinds) == (opset >= 20)


def test_bytes_are_the_same_every_time():
    model = Block().eval()
    args = {"dynamic": {"ids": {0: "batch", 1: "time"}}, "verify": False}
    first, second = (
        dg.onnx.export(model, tokens(2, 5), **args).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second


def test_no_size_of_the_example_is_baked_in():
    _, proto, *_ = exported("block")
    shape = proto.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", "time", 8]


def test_bias_goes_into_the_convolution():
    _, proto, *_ = exported("cnn")
    convolutions = [n for n in proto.graph.node if n.op_type == "Conv"]
    assert [len(n.input) for n in convolutions] == [3, 3]
    assert not any(n.op_type == "Add" for n in proto.graph.node)


def test_model_says_who_made_it(tmp_path):
    path = tmp_path / "m.onnx"
    dg.onnx.export(mlp().eval(), floats(1, 4), path)
    proto = onnx.load(path)
    assert (proto.producer_name, proto.producer_version) == ("duograd", dg.__version__)
    assert "Sequential" in proto.doc_string
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_several_inputs_and_outputs_by_name(close):
    def pair(x, *, scale, other):
        return {"total": x * scale + other, "parts": (x, other - 1)}

    x, other = floats(2, 3), floats(2, 3) + 1
    proto = dg.onnx.export(
        pair, {"x": x, "scale": 3.0, "other": other}, dynamic={"x": {0: "n"}, "other": {0: "n"}}
    )
    assert [i.name for i in proto.graph.input] == ["x", "other"]
    assert [o.name for o in proto.graph.output] == ["total", "parts_0", "parts_1"]
    loaded = dg.onnx.load(proto)
    for got in (loaded(x, other), loaded(other=other, x=x), loaded(x, other=other.numpy())):
        close(got[0].numpy(), (x * 3.0 + other).numpy())
        close(got[2].numpy(), (other - 1).numpy())


def test_names_can_be_chosen():
    proto = dg.onnx.export(lambda x: x + 1, floats(2), input_names=["image"], output_names=["logits"])
    assert proto.graph.input[0].name == "image"
    assert proto.graph.output[0].name == "logits"


def test_result_that_is_an_input_is_a_copy(close):
    x = floats(2)
    proto = dg.onnx.export(lambda x: (x, x), x)
    assert [n.op_type for n in proto.graph.node] == ["Identity", "Identity"]
    close(dg.onnx.load(proto)(x)[1].numpy(), x.numpy())


def test_tensors_of_a_closure_are_named_by_their_variable():
    weight = dg.tensor(np.ones((3, 2), "float32"), requires_grad=True)

    def model(x):
        return x @ weight

    proto = dg.onnx.export(model, floats(1, 3))
    assert [t.name for t in proto.graph.initializer] == ["weight"]
    assert [n for n, _ in dg.onnx.load(proto).named_parameters()] == ["weight"]


def test_method_and_graph_function_go_out(close):
    class Coder(nn.Module):
        def __init__(self):
            self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)

        def encode(self, x):
            return self.inner(x) * 2

        @dg.function
        def inner(self, x):
            return dg.tanh(self.encoder(x))

    model, x = Coder().eval(), floats(3, 4)
    proto = dg.onnx.export(model.encode, x)
    assert [t.name for t in proto.graph.initializer] == ["encoder.weight", "encoder.bias"]
    close(dg.onnx.load(proto)(x).detach().numpy(), model.encode(x).detach().numpy())


def test_shared_parameter_is_one_initializer():
    class Tied(nn.Module):
        def __init__(self):
            self.embed = nn.Embedding(10, 4)

        def forward(self, ids):
            return self.embed(ids) @ self.embed.weight.T

    proto = dg.onnx.export(Tied().eval(), tokens(2, 3))
    assert [t.name for t in proto.graph.initializer] == ["embed.weight"]


def test_gradient_of_a_function_goes_out(close):
    """What backward() does is ops too: composites are recorded through their parts there."""

    def slope(x):
        return dg.grad(lambda v: (dg.softmax(v) * v).sum())(x)

    x = floats(3, 4)
    loaded = dg.onnx.load(dg.onnx.export(slope, x))
    close(loaded(x).numpy(), slope(x).numpy(), scale=5)


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("flatten", lambda x: x.reshape(-1)),
        ("merge", lambda x: x.reshape(x.shape[0] * x.shape[1], x.shape[2])),
        ("split", lambda x: x.reshape(x.shape[0], 2, x.shape[1] // 2, x.shape[2])),
        ("mean", lambda x: x.mean()),
        ("var", lambda x: x.var(axis=(0, 1), correction=1.0)),
        ("scale", lambda x: x * (1 / math.sqrt(x.shape[1]))),
        ("full", lambda x: x + dg.full((x.shape[0], 1, 1), 2.0)),
        ("zeros", lambda x: dg.concat([x, dg.zeros((x.shape[0], 2, 3))], axis=1)),
        ("last", lambda x: x[:, -1]),
        ("backwards", lambda x: x[::-1, ::2]),
        ("tail", lambda x: x[:, -3:, 1:]),
        ("head", lambda x: x[:, :-1]),
        ("expand", lambda x: x[:, :1].broadcast_to(x.shape)),
        ("one_hot", lambda x: dg.one_hot(x.argmax(axis=1), num_classes=x.shape[1])),
        ("arange", lambda x: x * dg.arange(x.shape[1], dtype=dg.float32).reshape(1, -1, 1)),
        ("eye", lambda x: dg.eye(x.shape[1]) @ x),
        ("size", lambda x: x.sum() / (x.shape[0] * x.shape[1] + 1)),
        ("flat_argmax", lambda x: x.argmax()),
        ("pad", lambda x: dg.pad(x, padding=((1, 0), (0, 2), (0, 0)))),
        ("loss", lambda x: dg.cross_entropy(x.reshape(-1, 3), dg.zeros((x.shape[0] * x.shape[1],), dtype=dg.int64))),
    ],
)  # fmt: skip
def test_sizes_are_followed_exactly(name, fn, close):
    axes = {"x": {0: "a", 1: "b"}}
    proto = dg.onnx.export(fn, floats(2, 4, 3), dynamic=axes)
    evaluator, loaded = ReferenceEvaluator(proto), dg.onnx.load(proto)
    for shape in ((3, 8, 3), (1, 4, 3), (5, 6, 3)):
        x = floats(*shape)
        want = fn(x).numpy()
        close(evaluator.run(None, {"x": x.numpy()})[0], want, scale=10)
        close(loaded(x).numpy(), want, scale=10)
    again = ReferenceEvaluator(dg.onnx.export(loaded, floats(2, 4, 3), dynamic=axes))
    close(again.run(None, {"x": x.numpy()})[0], want, scale=10)


def test_nodes_are_named_by_their_modules_and_say_their_line():
    _, proto, *_ = exported("cnn")
    names = {n.op_type: n.name for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MaxPool")}
    assert names == {"Conv": "3/conv_1/Conv", "Gemm": "7/linear_0/Gemm", "MaxPool": "2/max_pool_0/MaxPool"}
    _, proto, *_ = exported("block")
    lines = {p.value for n in proto.graph.node for p in n.metadata_props if p.key == "duograd.line"}
    assert any("test_onnx_models.py:" in line for line in lines)
    assert any(n.name.startswith("norms.1/layer_norm") for n in proto.graph.node)


@pytest.mark.parametrize("opset", [13, 20])
def test_training_mode_gives_new_statistics_as_outputs(opset, close):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).eval()
    x, more = floats(4, 1, 4, 4), floats(7, 1, 4, 4)
    before = {n: b.numpy() for n, b in model.named_buffers()}
    proto = dg.onnx.export(model, x, dynamic={"x": {0: "batch"}}, opset=opset, training=True)
    assert not model.training
    for name, b in model.named_buffers():  # neither the traces nor the proof left a mark
        close(b.numpy(), before[name])
    names = [o.name for o in proto.graph.output]
    assert names == [
        "output",
        *(f"1.{n}.new" for n in ("num_batches_tracked", "running_mean", "running_var")),
    ]
    found = dict(zip(names, ReferenceEvaluator(proto).run(None, {"x": more.numpy()})))
    close(found["output"], model.train()(more).detach().numpy(), scale=10)
    for name, b in model.named_buffers():
        close(found[f"{name}.new"], b.numpy(), scale=10)


def test_inference_mode_can_be_asked_for():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    proto = dg.onnx.export(model, floats(3, 4), training=False)
    assert [o.name for o in proto.graph.output] == ["output"]
    assert [m.training for m in model.modules()] == [True, True, True, False]


@pytest.mark.filterwarnings("ignore:onnxruntime")  # which has no Exp of bfloat16
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_model_of_sixteen_bits_is_proved(dtype):
    x = dg.linspace(-2.0, 2.0, 7).to(dtype)
    dg.onnx.export(lambda x: dg.exp(x) * 3.1 + dg.log(x), x)  # rounded in between or not, and NaN


def test_sign_of_a_zero_is_copied():
    one, zeros = dg.ones(3), np.array([0.0, -0.0, -1.0], np.float32)
    model = dg.onnx.export(dg.copysign, (one, dg.tensor(zeros)))
    names = [i.name for i in model.graph.input]
    found = ReferenceEvaluator(model).run(None, dict(zip(names, (one.numpy(), zeros))))[0]
    np.testing.assert_array_equal(found, [1, -1, -1])
