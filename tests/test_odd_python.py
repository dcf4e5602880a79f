"""What Python does with tensors besides computing: keys, texts, copies; the same in both modes."""

import copy
import pickle
import subprocess
import sys
import textwrap

import duograd as dg
import pytest


def ones(*values):
    return dg.tensor(list(values or (1.0, 2.0)))


def see(x):
    if isinstance(x, dg.Tensor):
        return x.detach().numpy().tolist(), x.requires_grad, type(x).__name__
    if isinstance(x, dict):
        return [(see(k), see(v)) for k, v in x.items()]
    return [see(y) for y in x] if isinstance(x, (list, tuple, set)) else x


def argument_as_key(jit):
    kept, x = {}, ones()
    f = jit(lambda x: kept.setdefault(x, len(kept)))
    return [f(x), f(x), f(ones()), len(kept), next(iter(kept)) is x]


def argument_in_a_set(jit):
    kept, x = set(), ones()

    def g(x):
        kept.add(x)
        return len(kept)

    f = jit(g)
    return [f(x), f(x), f(ones())]


def result_as_key(jit):
    f = jit(lambda x: {x * 2: 1})
    return [see(f(ones())), see(f(ones(3.0)))]


def made_key_of_a_dict_from_outside(jit):
    kept = {}

    def g(x):
        kept[x * 2] = len(kept)

    f = jit(g)
    for k in range(3):
        f(ones(float(k)))
    return see(kept)


def texts(jit):
    w = dg.nn.Parameter(ones())

    def g(x):
        return repr(x), str(x * 2), f"{x} {w}", repr(w * x)

    f = jit(g)
    made = [f(ones()), f(ones(3.0, 4.0))]
    with dg.no_grad():
        w += 1
    return [*made, f(ones())]


def copies(jit):
    f = jit(lambda x: copy.deepcopy(x) + copy.copy(x))
    return see([f(ones()), f(ones(3.0, 4.0))])


def copy_of_a_parameter(jit):
    w = dg.nn.Parameter(ones())

    def g(x):
        v = copy.deepcopy(w)
        return v * x, v, isinstance(v, dg.nn.Parameter)

    f = jit(g)
    return see([f(ones()), f(ones(3.0, 4.0))])


def copy_of_a_module(jit):
    layer = dg.nn.Linear(2, 2)
    f = jit(lambda x: copy.deepcopy(layer)(x))
    return see([f(ones()), f(ones(3.0, 4.0))])


def kinds_of_arguments(jit):
    f = jit(lambda x: x * (2 if isinstance(x, dg.nn.Parameter) else 3))
    given = [dg.nn.Parameter(ones()), ones().requires_grad_(), dg.nn.Parameter(ones()), ones()]
    return see([f(x) for x in given * 2])


def pickled(jit):
    w = ones()
    f = jit(lambda x: see(pickle.loads(pickle.dumps([x * 2, w]))))
    return [f(ones()), f(ones(3.0))]


@pytest.mark.parametrize("case", [
    argument_as_key, argument_in_a_set, result_as_key, made_key_of_a_dict_from_outside, texts, copies,
    copy_of_a_parameter, copy_of_a_module, kinds_of_arguments, pickled,
])  # fmt: skip
def test_both_modes_give_the_same(case):
    found = []
    for mode in ("eager", "graph"):
        dg.manual_seed(0)
        found.append(case(lambda fn, mode=mode: dg.function(fn, mode=mode)))
    assert found[0] == found[1]


def _of_an_outer_function():
    k = 10.0

    def fn(x):
        parts = [x * k for k in range(3)]
        return parts[2] * k

    return fn


def _of_its_own(x):
    k = 3.0
    inner = lambda: k
    parts = [x * k for k in range(3)]
    return parts[2] * inner() * k


def _of_an_argument(x, k=2.0):
    inner = lambda: k
    return sum([x * k for k in range(4)]) * inner() + k


def _of_functions_of_its_own(x):
    inner = [lambda: k for k in range(4)]  # noqa: B023
    return x * inner[1]() + sum(k for k in range(3))


def _in_a_function_that_it_calls(x):
    return _of_its_own(x) + _of_an_argument(x, 5.0)


@pytest.mark.parametrize(
    "fn",
    [_of_an_outer_function(), _of_its_own, _of_an_argument, _of_functions_of_its_own, _in_a_function_that_it_calls],
    ids=["outer", "own", "argument", "functions", "called"],
)  # fmt: skip
def test_variables_of_comprehensions_may_have_the_names_of_shared_ones(fn):
    """Python 3.12 and 3.13 take them for each other where a frame is watched."""
    graph = dg.function(fn)
    for n in (1, 2, 3):
        assert graph(dg.ones(2) * n).tolist() == fn(dg.ones(2) * n).tolist()


IMPORTED = """
_default = True
COUNT = 0
TABLE = {}


def bump():
    global COUNT
    COUNT += 1
    return COUNT


def cached(k):
    if k not in TABLE:
        TABLE[k] = k * 2
    return TABLE[k] if _default else 0
"""


def _bumps(x):
    import imported_in_a_call

    return x * imported_in_a_call.bump()


def _looks_up(x):
    from imported_in_a_call import bump, cached

    return x * cached(3) + bump()


@pytest.mark.parametrize("fn", [_bumps, _looks_up])
def test_a_module_that_a_call_imports_first_is_there_for_the_next_ones(fn, tmp_path, monkeypatch):
    (tmp_path / "imported_in_a_call.py").write_text(IMPORTED)
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    for run in (fn, dg.function(fn)):
        sys.modules.pop("imported_in_a_call", None)
        seen.append([run(dg.ones(1)).item() for _ in range(4)])
    sys.modules.pop("imported_in_a_call", None)
    assert seen[0] == seen[1]
    assert "imports imported_in_a_call for the first time" in str(run.explain())
    assert run.variants


def test_the_framework_s_modules_may_be_found_within_a_first_call():
    code = """
        import duograd as dg

        @dg.function
        def log_prob(x):
            return dg.distributions.Normal(x, dg.ones_like(x)).log_prob(x)

        for _ in range(3):
            log_prob(dg.zeros(2))
        assert len(log_prob.variants) == 1, log_prob.explain()
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
