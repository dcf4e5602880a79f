"""The dependency rule, import cost, and that there is one registry whatever way tests are started."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import duograd
import pytest

ROOT = Path(duograd.__file__).parent
ALLOWED = {
    "core": {"core"},
    "eager": {"core", "eager"},
    "graph": {"core", "graph"},
    "backends": {"core", "backends"},
    "nn": {"core", "nn"},
    "interop": {"core", "graph", "nn", "interop", "bench"},
    "bench": {"core", "eager", "graph", "backends", "nn", "interop", "bench"},
}
#: third-party packages by folder, besides NumPy and the standard library
OUTSIDE = {
    "core": {"ml_dtypes"},
    "eager": set(),
    "graph": set(),
    "backends/cpu": {"numba", "llvmlite"},
    "backends/cuda": {"cupy", "cupy_backends"},
    "nn": set(),
    "interop/onnx": {"onnx", "onnxruntime", "ml_dtypes", "google"},
    "interop/onnx/adapt_image.py": {"PIL"},
    "interop/onnx/adapt_text.py": {"re2"},
    "interop": {"safetensors", "rich", "matplotlib", "sklearn", "onnxruntime"},
    "backends/cpu/vecmath_fit.py": {"mpmath"},  # makes the coefficient tables; not part of a running program
    "backends/cpu/vecmath_fit_tables.py": {"mpmath"},
    "backends/cpu/vecmath_measure.py": {"mpmath"},
    "bench": {
        "duograd",
        "ml_dtypes",
        "torch",
        "jax",
        "jaxlib",
        "tensorflow",
        "onnxruntime",
        "rich",
        "matplotlib",
        "threadpoolctl",
        "onnx",
    },
}
FILES = [p for folder in ALLOWED for p in sorted((ROOT / folder).rglob("*.py"))]


def _imports(path):
    """(dotted module, level) of every import in a file, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.module, node.level
            else:
                yield from ((alias.name, node.level) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_the_dependency_rule(path):
    relative = path.relative_to(ROOT)
    folder = relative.parts[0]
    outside = set()
    for prefix, packages in OUTSIDE.items():
        if str(relative).startswith(prefix + "/") or str(relative) == prefix:
            outside |= packages
    for module, level in _imports(path):
        if level:
            package = ["duograd", *relative.parts[:-1]]
            base = package[: len(package) - level + 1]
            target = [*base, *module.split(".")]
            if len(target) > 1 and target[1] in ALLOWED:
                assert target[1] in ALLOWED[folder], f"{relative} imports {'.'.join(target)}"
        else:
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in ("numpy", "__future__"):
                continue
            assert top in outside, f"{relative} imports {module}"


def _run(code, **kwargs):
    return subprocess.run(
        [sys.executable, *code], capture_output=True, text=True, check=True, **kwargs
    ).stdout


def test_import_loads_no_heavy_package():
    loaded = _run(
        [
            "-c",
            "import sys, duograd; print([m for m in 'numba llvmlite cupy onnx torch'.split() if m in sys.modules])",
        ]
    )
    assert loaded.strip() == "[]"


PROBE = """
import sys
import duograd
def test_probe():
    twice = [m for m in sys.modules if m == "core" or m.startswith("core.")]
    assert not twice, twice
    ops = [m for n, m in list(sys.modules.items()) if n.endswith("core.op")]
    registries = {id(m.REGISTRY) for m in ops if hasattr(m, "REGISTRY")}
    assert len(registries) == 1
"""


@pytest.mark.parametrize(
    "start", [["-m", "pytest"], ["-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"]]
)
def test_pytest_makes_one_registry(tmp_path, start):
    """A root __init__ tempts pytest to import `core` under a second name."""
    probe = tmp_path / "test_probe.py"
    probe.write_text(PROBE)
    out = _run([*start, "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(probe)], cwd=ROOT)
    assert "1 passed" in out


def test_a_wheel_holds_every_folder_of_the_package():
    settings = ROOT / "pyproject.toml"
    if not settings.exists():
        pytest.skip("an installed package has no pyproject.toml")
    made = tomllib.loads(settings.read_text())["tool"]["setuptools"]
    folders = {p.parent.relative_to(ROOT) for p in ROOT.rglob("__init__.py")}
    beside = {
        f for f in folders if f.parts and (f.parts[0] in ("tests", "build") or f.parts[0].startswith("."))
    }
    assert set(made["packages"]) == {".".join(("duograd", *f.parts)) for f in folders - beside}
    for name in made["packages"]:
        for path in ROOT.joinpath(*name.split(".")[1:]).iterdir():
            if path.suffix in (".html", ".h", ".cuh", ".cu", ".typed"):
                assert any(path.match(pattern) for pattern in made["package-data"].get(name, [])), path
