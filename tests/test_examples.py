"""The programs of examples/ run, learn, and give what they say; a few steps of each."""

import importlib.util
from pathlib import Path

import duograd
import pytest

FOLDER = Path(duograd.__file__).parent / "examples"


def main_of(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_gpt_learns_letters():
    first, last, text = main_of("gpt")(steps=60, batch=4, letters=20)
    assert last < first - 0.8
    assert len(text) == 20


def test_gan_turns():
    share, kinds = main_of("gan")(steps=10, batch=32)
    assert 0 <= share <= 1
    assert 0 <= kinds <= 8


def test_the_heat_equation_is_solved():
    assert main_of("heat")(steps=300, points=64) < 0.2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_from_outside_is_tuned(tmp_path):
    before, after, difference = main_of("fine_tune")(tmp_path, steps=100)
    assert after > max(0.9, before)
    assert difference < 1e-4


def test_every_example_is_here_and_in_the_readme():
    names = {p.stem for p in FOLDER.glob("*.py")}
    assert names == {"fine_tune", "gan", "gpt", "heat"}
    readme = (FOLDER.parent / "README.md").read_text()
    assert all(f"examples/{name}.py" in readme for name in names)
