"""What is said in more than one file of the project says the same everywhere."""

import ast
import configparser
import re
from pathlib import Path

import yaml

from gscnn_lightning import __version__

ROOT = Path(__file__).parents[1]


def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_rooms_in_contributing_are_those_of_the_contract():
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| room | holds |")[2].partition("\n\n")[0]
    told = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:]]
    layers = setup()["importlinter:contract:arrows"]["layers"].split("\n")
    assert told == [re.findall(r"\w+", layer) for layer in layers if layer]


def test_files_that_contributing_points_at_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    source = ROOT / "src/gscnn_lightning"
    places = (ROOT, source, source / "prediction", source / "exporting", source / "commands")
    for path in re.findall(r"`([\w/]+\.py)`", text):
        assert any((place / path).is_file() for place in places), path


def test_text_files_are_read_and_written_in_utf_8():
    """By calls that say so, as the default is that of the locale."""
    for path in (ROOT / "src").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _opens(node)):
            text = ast.unparse(call)
            binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in call.args)
            assert "encoding=" in text or binary or "'/proc/" in text, f"{path}, line {call.lineno}: {text}"


def _opens(node):
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return (
        named
        and node.func.attr in ("read_text", "write_text", "open")
        and ast.unparse(node.func.value)
        not in (
            "os",
            "Image",
            "tarfile",
        )
    )


def test_nothing_is_unpickled_or_made_of_yaml():
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                found += [
                    f"{path}:{node.lineno}" for name in names if name.split(".")[0] in ("pickle", "dill", "joblib")
                ]
            if not isinstance(node, ast.Call):
                continue
            called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            is_open = (
                (called in ("torch.load", "load_state_dict_from_url") and given.get("weights_only") != "True")
                or called in ("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "eval", "exec")
                or (called.endswith(".load") and given.get("allow_pickle", "False") != "False")
            )
            found += [f"{path}:{node.lineno} {called}"] if is_open else []
    assert found == []


def test_versions_of_python_are_the_same_everywhere():
    metadata = setup()
    listed = re.findall(r"Python :: (3\.\d+)", metadata["metadata"]["classifiers"])
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == listed
    assert metadata["options"]["python_requires"].strip() == f">={listed[0]}"
    assert metadata["mypy"]["python_version"] == listed[0]
    assert f'target-version = "py{listed[0].replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()
    assert f"Python {listed[0]} to {listed[-1]}" in (ROOT / "CONTRIBUTING.md").read_text()


def test_hosted_checks_and_hooks_call_the_same_targets():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    ran = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert ran == ["make lint", "make test"]
    assert workflow["jobs"]["docs"]["steps"][-1] == {"run": "make docs"}
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repo["hooks"]] == ["make lint"]
    assert "make lint\nmake test\n" in (ROOT / ".ci/run").read_text()


def test_citation_has_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
