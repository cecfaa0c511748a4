import subprocess
import sys

from gscnn_lightning import __version__
from gscnn_lightning.run_folder.environment import code_version, environment


def test_versions_and_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/opt/bin/gscnn-fit", "--data.root", f"{tmp_path}/CamVid", f"{tmp_path}s/CamVid"])
    record = environment()
    assert record["gscnn_lightning"] == __version__
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["command"] == ["gscnn-fit", "--data.root", "~/CamVid", f"{tmp_path}s/CamVid"]
    assert {"torch", "pytorch_lightning", "timm", "albumentations", "numpy", "processor", "started"} <= set(record)


def test_commit_and_changes(tmp_path):
    assert code_version(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    assert code_version(tmp_path) == commit
    (tmp_path / "untracked").write_text("2")
    assert code_version(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert code_version(tmp_path) == f"{commit}+changes"
