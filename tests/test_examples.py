"""Every numbered example runs as its first lines say, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("0*.py"))


@pytest.mark.detector
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=200, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert "reprojection" in done.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in written:
        assert path.is_relative_to(tmp_path / "fits")


def test_examples_open_with_their_usage():
    assert len(EXAMPLES) >= 5
    for script in EXAMPLES:
        assert f"python examples/{script.name}" in script.read_text(encoding="utf-8").split('"""')[1]
