"""What a person can see of a graph: explain, show, profile, the page."""

import copy
import enum
import json
import os
import re
import subprocess
import sys

import duograd as dg
import numpy as np
import pytest
from duograd.graph import report


def small_step():
    dg.manual_seed(0)
    model = dg.nn.Sequential(dg.nn.Linear(6, 8), dg.nn.ReLU(), dg.nn.Linear(8, 3))
    optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

    @dg.function
    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    return step, model, dg.randn(4, 6)


def compiled_of(fn):
    return fn.variants[0].runners()[0].compiled


def test_explain_tells_kernels_lines_borders_memory_and_guards():
    step, _, x = small_step()
    step(x)
    text = step.explain()
    assert "variant 1: first call" in text
    assert re.search(r"matmul, add, relu .*test_seeing\.py:\d+", text)
    assert "matmul reads whole values from memory" in text
    assert "in use over the steps |" in text
    assert "guard: model is a Sequential" in text


def test_explain_lists_all_guards_on_request():
    step, _, x = small_step()
    step(x)
    assert "more guards" in step.explain()
    assert step.explain(guards=True).count("guard: ") > step.explain().count("guard: ")


def test_explain_says_which_values_lead_to_a_graph():
    @dg.function
    def f(x):
        if x.sum() > 0:
            return x * 2 if int(x.max()) == 1 else dg.exp(x)
        return x - 1

    for value in (1, 2, 3, -1):
        f(dg.full((2,), float(value)))
    at = [f"at {report.near_line(f'{__file__}:{f._fn.__code__.co_firstlineno + k}')}" for k in (2, 3)]
    titles = [title for title, _ in report.stretches(f.variants[0])]
    true, false = (f"f, after {v} {at[0]}" for v in (True, False))
    assert titles == ["f", true, f"{true}, after 1.0 {at[1]}", f"{true}, after a number {at[1]}", false]
    assert all(f"{title}: " in f.explain() for title in titles)


def test_the_time_of_compiling_is_that_of_all_paths_and_of_the_background(capsys):
    f = dg.function(lambda x: dg.tanh(x) * 2 if x.sum() > 0 else x - 1, name="f")
    f(dg.ones(2))
    first = f.variants[0].seconds
    f(-dg.ones(2))
    assert f.variants[0].seconds > first
    g = dg.function(lambda x: dg.tanh(x) * 2 + 1, name="g", compile="background")
    os.environ["DUOGRAD_SHOW"] = "retrace,timing"
    try:
        g(dg.ones(2))
        assert g.wait()
    finally:
        del os.environ["DUOGRAD_SHOW"]
    assert g.variants[0].seconds > 0
    told = capsys.readouterr().err
    assert "retrace: g, variant 1" in told
    assert re.search(r"timing: g, variant 1: [\d.]+ s in the background", told)


def test_explain_lists_the_kernels_of_bodies_and_branches():
    w, xs = dg.randn(3, 3), dg.randn(5, 2, 3)

    def turn(h, x):
        h = dg.tanh(h @ w + x)
        return h, dg.cond(h.sum() > 0, lambda h: dg.exp(h) * 2, lambda h: h - 1, h)

    @dg.function
    def fn(xs):
        last, rows = dg.scan(turn, dg.zeros((2, 3)), xs)
        return rows, dg.while_loop(lambda h: h.sum() < 100, lambda h: dg.abs(h) * 2 + 1, last)

    fn(xs)
    text = fn.explain()
    assert re.search(r"body of scan in step \d+, 5 turns: \d+ ops -> \d+ fused groups", text)
    for kernel in ("matmul, add, tanh", "exp, multiply", "sum, less", "abs, multiply, add"):
        assert re.search(kernel + r" .*test_seeing\.py:\d+", text), kernel
    for region in ("on_true of cond", "on_false of cond", "test of while_loop", "body of while_loop"):
        assert f"{region} in step" in text
    assert "matmul reads whole values" not in text.partition("body of scan")[0]
    scan = next(k for k in report.kernels(compiled_of(fn)) if k.title == "scan")
    assert scan.flops >= 5 * 2 * 2 * 3 * 3  # the products of five turns


def test_work_and_traffic_of_a_product():
    a, b = dg.randn(5, 7), dg.randn(7, 3)
    fn = dg.function(lambda a, b: dg.relu(a @ b))
    fn(a, b)
    (kernel,) = report.kernels(compiled_of(fn))
    assert kernel.flops == 2 * 5 * 7 * 3 + 5 * 3
    assert sum(n for _, n in kernel.reads) == 4 * (35 + 21)
    assert sum(n for _, n in kernel.writes) == 4 * 15


def test_what_a_kernel_writes_where_it_has_read():
    step, model, x = small_step()
    step(x)
    update = next(k for k in report.kernels(compiled_of(step)) if "sgd" in k.title or "subtract" in k.title)
    assert update.renewed == sum(p.nbytes for p in model.parameters()) == sum(n for _, n in update.writes)
    fn = dg.function(lambda x: x * 2)
    fn(x)
    assert [k.renewed for k in report.kernels(compiled_of(fn))] == [0]


def test_a_broadcast_operand_is_read_once():
    fn = dg.function(lambda x, b: x * b)
    fn(dg.ones((8, 4)), dg.ones((4,)))
    (kernel,) = report.kernels(compiled_of(fn))
    assert {v.type.shape: n for v, n in kernel.reads} == {(8, 4): 128, (4,): 16}


def test_memory_in_use_never_exceeds_the_arena():
    step, _, x = small_step()
    step(x)
    compiled = compiled_of(step)
    use = report.live_bytes(compiled)
    assert len(use) == report.levels(compiled)
    assert 0 < max(use) <= compiled.arena_bytes


def test_every_border_has_a_reason():
    step, _, x = small_step()
    step(x)
    found = report.borders(compiled_of(step))
    assert found
    assert all(b.reason and b.maker != b.reader for b in found)


def test_profile_times_every_kernel_and_leaves_the_state_alone():
    step, model, x = small_step()
    step(x)
    before = [p.detach().numpy().copy() for p in model.parameters()]
    found = step.profile(x, seconds=0.01)
    assert len(found.rows) == len(report.kernels(compiled_of(step)))
    assert all(r.seconds >= 0 and r.floor >= 0 and r.bound for r in found.rows)
    assert found.rows == tuple(sorted(found.rows, key=lambda r: -r.seconds))
    assert all((a == p.detach().numpy()).all() for a, p in zip(before, model.parameters()))
    assert "of floor" in str(found)
    assert "time" in step.explain()


def test_profile_of_a_function_that_changes_what_it_asks_for():
    class Log:
        pass

    log, state = Log(), {"h": dg.zeros(1)}

    @dg.function
    def step(x):
        log.__dict__.setdefault("rows", []).append(1)
        state["h"] = state["h"] + x.sum()
        return x * len(log.rows)

    x = dg.ones(2)
    for calls in range(3):
        assert step.profile(x, seconds=0.001).calls >= 3
        assert len(vars(log).get("rows", ())) == calls
        assert step(x).tolist() == [calls + 1] * 2
    assert state["h"].tolist() == [6]


def test_profile_runs_the_plan_with_the_right_numbers():
    step, model, x = small_step()
    twin, other, _ = small_step()
    step.profile(x, seconds=0.01)
    assert step(x).item() == twin.eager(x).item()
    for p, q in zip(model.parameters(), other.parameters()):
        assert np.array_equal(p.detach().numpy(), q.detach().numpy())


def test_profile_follows_branches_on_values_and_undoes_python_effects():
    seen, count = [], 5

    @dg.function
    def fn(x):
        nonlocal count
        count += 1
        seen.append(1)
        return x * 2 if x.sum() > 0 else x - 1

    assert len({r.graph for r in fn.profile(dg.ones(3), seconds=0.01).rows}) == 1
    dg.compare(fn, dg.ones(3))
    assert seen == []
    assert count == 5


def test_profile_wants_positive_seconds():
    with pytest.raises(ValueError, match=r"\[profile\] seconds=0 is not positive"):
        dg.function(lambda x: x + 1).profile(dg.ones(2), seconds=0)


def page_data(path):
    text = path.read_text()
    return text, json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    )


def test_the_page_holds_both_graphs_linked_and_needs_nothing_from_outside(tmp_path):
    step, _, x = small_step()
    step(x)
    text = step.show(html=tmp_path / "step.html")
    page, data = page_data(tmp_path / "step.html")
    assert text == step.show()
    assert not re.search(r"(src|href)\s*=|url\(|@import|fetch\(", page)
    (graph,) = data["variants"][0]["graphs"]
    assert len(graph["traced"]) == len(compiled_of(step).graph.nodes)
    kernels = {k["id"]: k for k in graph["kernels"]}
    for number, op in enumerate(graph["ops"]):
        assert op["kernel"] is None or number in kernels[op["kernel"]]["ops"]
        assert all(source < number for source in op["from"])
    assert all(k["sources"] for k in kernels.values())
    assert data["code"][0]["lines"][0].strip() == "@dg.function"
    assert os.listdir(tmp_path) == ["step.html"]


def test_the_page_has_the_kernels_of_a_loops_body(tmp_path):
    fn = dg.function(lambda x: dg.scan(lambda h, x: (h * x, h + x), dg.ones(3), x))
    fn(dg.ones((4, 3)))
    fn.show(html=tmp_path / "p.html")
    _, data = page_data(tmp_path / "p.html")
    (kernel,) = (k for k in data["variants"][0]["graphs"][0]["kernels"] if k["title"] == "scan")
    assert all("def kernel(" in source for source in kernel["sources"])


def doubled(x):
    return x * 2


class Shifted(dg.nn.Module):
    def forward(self, x):
        return doubled(x) + 1


def test_the_page_shows_the_users_functions_that_the_ops_come_from(tmp_path):
    model = Shifted()

    @dg.function
    def f(x):
        return dg.scan(lambda h, row: (h + row,) * 2, dg.zeros(3), model(x)) if x.sum() > 0 else model(x)

    f(dg.ones((2, 3)))
    f(-dg.ones((2, 3)))
    f.show(html=tmp_path / "p.html")
    _, data = page_data(tmp_path / "p.html")
    assert [block["lines"][0].strip() for block in data["code"]] == [
        "@dg.function", "def doubled(x):", "def forward(self, x):",
    ]  # fmt: skip
    graphs = data["variants"][0]["graphs"]
    places = {line for block in data["code"] for line in block["places"]}
    assert all(op["line"] in places for g in graphs for op in g["ops"] if op["line"])
    names = [g["name"] for g in graphs]
    assert names[0] == "f"
    assert ", after True at" in names[1]
    assert names[2] == "body of scan in step 1, 2 turns"
    assert ", after False at" in names[3]


def test_the_page_of_a_lambda_and_of_a_module_has_their_lines(tmp_path):
    for fn, first in (
        (dg.function(lambda x: x * 3), "for fn, first in"),
        (dg.function(Shifted()), "def forward"),
    ):
        fn(dg.ones(2))
        fn.show(html=tmp_path / "p.html")
        _, data = page_data(tmp_path / "p.html")
        assert any(s.strip().startswith(first) for block in data["code"] for s in block["lines"])


def test_text_of_the_user_cannot_leave_its_place_in_the_page(tmp_path):
    fn = dg.function(lambda x: x + 1, name="</script><script>alert(1)</script>")
    fn(dg.ones(2))
    fn.show(html=tmp_path / "p.html")
    page, data = page_data(tmp_path / "p.html")
    assert data["name"] == fn.name
    assert "<script>alert" not in page


def test_what_has_no_page_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has no graph yet"):
        dg.function(lambda x: x).show(html=tmp_path / "p.html")
    left = dg.function(lambda x: x * len(os.listdir("/")))
    left(dg.ones(2))
    with pytest.raises(
        ValueError, match=r"has no graph to show: its Python runs at every call, .* posix.listdir"
    ):
        left.show(html=tmp_path / "p.html")
    with pytest.raises(
        dg.errors.TraceError, match=r"\[profile\] .* its Python runs at every call: it calls posix"
    ):
        left.profile(dg.ones(2), seconds=0.001)
    fn = dg.function(lambda x: x + 1)
    fn(dg.ones(2))
    with pytest.raises(ValueError, match=r"there is no folder for .*p.html"):
        fn.show(html=tmp_path / "none" / "p.html")
    assert os.listdir(tmp_path) == []


def test_every_compiled_graph_is_shown_on_request(monkeypatch, capsys):
    monkeypatch.setenv("DUOGRAD_SHOW", "fusion, graph")
    step, _, x = small_step()
    step(x)
    shown = capsys.readouterr().err
    assert "matmul reads whole values from memory" in shown
    assert "graph step(" in shown


def test_a_wrong_wish_is_an_error(monkeypatch):
    monkeypatch.setenv("DUOGRAD_SHOW", "fussion")
    with pytest.raises(ValueError, match=r"\[DUOGRAD_SHOW\] 'fussion' is nothing to show"):
        dg.function(lambda x: x + 1)(dg.ones(2))


def test_a_topic_is_shown_inside_its_context_alone(capsys):
    f = dg.function(lambda x: x * 3 + 1)
    f(dg.ones(2))
    with dg.show("retrace", "timing"):
        f(dg.ones(3))
        with dg.show("fusion"):
            f(dg.ones(4))
        f(dg.ones(5))
    f(dg.ones(6))
    lines = capsys.readouterr().err.splitlines()
    told = [x for x in lines if x.startswith(("retrace", "timing"))]
    assert [x.split(":")[0] for x in told] == ["retrace", "timing"] * 3
    assert "variant 2" in told[0]
    assert "float32[2] became float32[3]" in told[0]
    assert "kernels: 0 compiled" in told[3]
    assert sum("2 ops -> 1 fused groups" in x for x in lines) == 1
    with pytest.raises(ValueError, match="'fussion' is nothing to show"):
        dg.show("fussion")


def test_what_is_left_to_python_is_told(capsys):
    @dg.function
    def f(x):
        return x * len(os.listdir("/"))

    with dg.show("retrace"):
        f(dg.ones(2))
    told = capsys.readouterr().err
    assert "f is left to Python: it calls posix.listdir()" in told
    line = f"test_seeing.py:{f._fn.__code__.co_firstlineno + 2})"
    assert line in told
    assert line in f.explain()


def test_the_op_that_makes_a_nan_is_named_with_its_line(capsys):
    w = dg.tensor([1.0, 0.0, 4.0], requires_grad=True)
    f = dg.function(lambda x: dg.log(x * w - 1).sum() * 2)
    with dg.show("nan"):
        f(dg.ones(3)).backward()
        w.grad = None
        dg.sqrt(w * 0.0).sum().backward()
        x = dg.full((2,), dg.nan) + dg.nan  # not the op that makes them
        x /= dg.zeros(2)
        dg.zeros(2, dtype=dg.bfloat16).div_(0)
    lines = capsys.readouterr().err.splitlines()
    assert [x.split()[1] for x in lines] == ["log", "multiply", "divide"]
    assert "made 1 NaN in float32[3], the first at [1], of float32[3] from -1 to 3" in lines[0]
    assert "in the gradient of multiply at " in lines[1]
    assert all(__file__ in x for x in lines)
    dg.log(-w)
    assert capsys.readouterr().err == ""


def test_layers_are_made_moved_and_loaded_while_nans_are_looked_for():
    for look in (dg.show("nan"), dg.autograd.detect_anomaly()):
        with look:
            model = dg.nn.Sequential(dg.nn.Linear(3, 4), dg.nn.LazyLinear(2))
            model(dg.ones(2, 3)).sum().backward()
            model.to(dg.float64)
            copy.deepcopy(model).load_state_dict(model.state_dict())
            optimizer = dg.optim.LBFGS(model.parameters())
            optimizer.step(lambda w=model[0].weight: (w**2).sum())


def test_an_anomaly_is_an_error():
    w = dg.tensor([0.0, 1.0], requires_grad=True)
    y = dg.sqrt(w * w)
    expected = pytest.raises(dg.errors.NanError, match=r"(?s)made 1 NaN in .* in the gradient of multiply")
    with expected as e, dg.autograd.detect_anomaly():
        y.sum().backward()
    assert isinstance(e.value, ArithmeticError)
    with dg.autograd.detect_anomaly(check_nan=False):
        assert dg.isnan(dg.log(-w)).any().item()


def test_a_run_shows_nans_on_request():
    program = "import duograd as dg; dg.log(dg.tensor([-1.0]))"
    env = {**os.environ, "DUOGRAD_SHOW": "nan"}
    told = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert told.stderr.startswith("nan: log made 1 NaN in float32[1], the first at [0]")


def test_reasons_name_the_objects_and_modes_that_changed():
    class Way(enum.Enum):
        UP = 1
        DOWN = 2

    @dg.function
    def f(x, way, scale=1.0):
        return x * scale

    x = dg.ones(2)
    f(x, Way.UP)
    for call, reason in (
        (lambda: f(x, Way.DOWN), "Way.UP became Way.DOWN"),
        (lambda: f(x, dg.nn.ReLU()), "Way became ReLU, Way.UP became a ReLU"),
        (lambda: f(x, dg.nn.ReLU()), "a ReLU became another"),
        (lambda: f(x, len), "Way became builtin_function_or_method, Way.UP became len"),
        (lambda: f(x, print), "len became print"),
        (lambda: f(x, print, scale=1.5), "the arguments have another structure"),
        (lambda: f(x, print, scale=2.5), "1.5 became 2.5"),
    ):
        call()
        assert f.variants[-1].reason.endswith(reason)
    with dg.no_grad():
        f(x, print)
    assert f.variants[-1].reason == "gradients are not recorded now"
