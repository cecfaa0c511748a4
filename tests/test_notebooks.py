"""Every notebook runs from start to end in a real kernel, on the embedded data, and is committed without outputs."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 25

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_notebooks_are_numbered():
    numbers = [match[1] for path in NOTEBOOKS if (match := re.fullmatch(r"(\d\d)_[a-z0-9_]+", path.stem))]
    assert len(numbers) == len(NOTEBOOKS), "notebooks are called 01_like_this.ipynb"
    assert len(set(numbers)) == len(numbers), "two notebooks have the same number"


@each_notebook
def test_notebook_is_thin_and_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# "), "a notebook begins with its title"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "commit notebooks without their outputs"
    longest = max(len(cell.source.splitlines()) for cell in code)
    assert longest <= LONGEST_CELL, f"a cell has {longest} lines: logic belongs into the library"


@pytest.mark.slow
@each_notebook
def test_notebook_runs(path, tmp_path, monkeypatch):
    # Shell cells call the commands of the environment that runs the tests, activated or not.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a notebook shows pictures"
    # A shell command that fails does not stop a notebook.
    printed = "".join(output.get("text", "") for output in outputs)
    assert not re.search(r"Traceback|gscnn: (error|(command )?not found)", printed), printed
