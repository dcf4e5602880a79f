"""The Python of README and docs/guide.md runs as it stands, top to bottom; so does what docs/porting.md names."""

import re
from pathlib import Path

import duograd
import pytest

README = Path(duograd.__file__).parent / "README.md"
GUIDE = README.parent / "docs" / "guide.md"
PORTING = README.parent / "docs" / "porting.md"


@pytest.mark.parametrize(
    ("page", "made"), [(README, "model.onnx"), (GUIDE, "circle.onnx")], ids=lambda x: Path(x).name
)
def test_its_code_runs(page, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": page.stem.lower()})
    assert (tmp_path / made).stat().st_size > 0


def test_porting_names_what_there_is():
    text = PORTING.read_text()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(PORTING), "exec"), {"__name__": "porting"})
    names = set(re.findall(r"dg\.([a-z_.A-Z]+[a-zA-Z])", text))
    assert len(names) > 20
    for name in names:
        found = duograd
        for part in name.split("."):
            found = getattr(found, part)
