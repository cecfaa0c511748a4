"""The built wheel, without the clone: everything is in it, and it works from any folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.tiny import write_config

ROOT = Path(__file__).parents[1]
TINY = ["--trainer.max_epochs", "1", "--data.samples_per_epoch", "60"]


def run(*command, folder):
    # Nothing but what is installed shall be found.
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*map(str, command)], cwd=folder, env=settings, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("src", "configs"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    result = run(*pip, folder=source)
    assert result.returncode == 0, result.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_has_all_configs_templates_and_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in (ROOT / "configs", ROOT / "src/gscnn_lightning/report/templates"):
        inside = "gscnn_lightning" if folder.name == "configs" else "gscnn_lightning/report"
        files = [path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file()]
        assert files
        assert {f"{inside}/{file}" for file in files} <= names
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert modules <= names
    assert "gscnn_lightning/py.typed" in names


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of the programs of an environment that has the wheel, and takes what it needs from this environment."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel]
    assert run(*pip, folder=environment).returncode == 0
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=environment)
    # Links to editable installations in there are not followed from here.
    (Path(where.stdout.strip()) / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


@pytest.mark.slow
def test_shipped_config_trains_and_reports(installed, tmp_path):
    result = run(installed / "gscnn-fit", "--config", "scenes", *TINY, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "best checkpoint" in result.stdout
    result = run(installed / "gscnn", "report", "runs/scenes/version_0", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "report.html").stat().st_size > 100_000
    code = "import gscnn_lightning; print(gscnn_lightning.__file__)"
    assert str(installed.parent) in run(installed / "python", "-c", code, folder=tmp_path).stdout


@pytest.mark.slow
def test_ablation_and_sweep_start(installed, tmp_path):
    write_config(tmp_path / "tiny.yaml", epochs=1)
    command = ["ablate", "--config", "tiny.yaml", "--rows", "control,dual_task", "--seeds", "0", "--out", "rows"]
    result = run(installed / "gscnn", *command, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(json.loads((tmp_path / "rows/ablation.json").read_text())["rows"]) == {"control", "dual_task"}
    command = ["sweep", "optimizer", "--runs", "1", "--config", "tiny.yaml", "--out", "draws"]
    result = run(installed / "gscnn", *command, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "draws/sweep.json").read_text())["runs"][0]["state"] == "complete"
