"""`gscnn` itself: finding commands, listing them, and importing no more than is needed."""

import re
import subprocess
import sys

import pytest

from gscnn_lightning.commands.main import COMMANDS, _function, main


def stopped(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, capsys.readouterr()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(words, capsys):
    code, printed = stopped([*words, "--help"], capsys)
    assert code == 0
    name = " ".join(("gscnn", *words))
    assert printed.out.startswith(f"usage: {name} ")
    assert f"\n  {name}" in printed.out.partition("Examples:")[2]
    assert max(map(len, printed.out.splitlines())) <= 120


def test_help_of_export_names_every_command_that_takes_its_files():
    helps = {" ".join(words): _function(words).__doc__ for words in COMMANDS}
    takers = {name for name, text in helps.items() if re.search(r"files? of gscnn export|as gscnn export", text)}
    assert takers >= {"predict", "score", "compare", "data suspects", "bench predict", "demo"}
    assert [name for name in sorted(takers) if f"gscnn {name}" not in helps["export"]] == []


def test_list_has_every_command_in_one_line(capsys):
    code, printed = stopped(["--help"], capsys)
    assert code == 0
    lines = printed.out.splitlines()
    for words in COMMANDS:
        (line,) = (line for line in lines if line.startswith(f"  {' '.join(words)}  "))
        assert line.endswith(".")
    _, printed = stopped(["data", "--help"], capsys)
    assert "data preview" in printed.out
    assert "predict" not in printed.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["predikt"], "predikt is no command: did you mean predict?"),
        (["data", "chek"], "data chek is no command: did you mean data check?"),
        (["data", "xyz"], "data xyz is no command: check, preview"),
        (["xyz"], "xyz is no command: new, scenes, "),
        (["--verbose"], "--verbose is no command"),
        (["-x", "scenes"], "-x is no command"),
    ],
)
def test_unknown_commands_are_refused_with_a_hint(args, words, capsys):
    code, printed = stopped(args, capsys)
    assert code == 2
    assert words in printed.err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_before_a_command_runs_nothing(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed = stopped(["--help", *words], capsys)
    assert code == 0
    assert "data check" in printed.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [[], ["data"]])
def test_without_a_command_the_list_is_shown(args, capsys):
    code, printed = stopped(args, capsys)
    assert code == 2
    assert "data check" in printed.out


def test_modules_are_imported_when_their_command_is_called_and_help_needs_nothing_slow():
    code = """
import sys
from gscnn_lightning.commands.main import main
assert not [m for m in sys.modules if m.startswith("gscnn_lightning.commands.") and not m.endswith(".main")]
def help_of(*words):
    try:
        main([*words, "--help"])
    except SystemExit:
        pass
help_of("predict")
commands = {m.rpartition(".")[2] for m in sys.modules if m.startswith("gscnn_lightning.commands.")}
assert commands == {"main", "predict"}, commands
help_of()
slow = {"torch", "numpy", "cv2", "pytorch_lightning", "timm", "matplotlib", "wandb"} & set(sys.modules)
assert not slow, slow
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_every_function_says_what_it_takes():
    for words in COMMANDS:
        function = _function(words)
        assert function.__name__ == words[-1].replace("-", "_")
