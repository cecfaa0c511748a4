"""The one style of command line, on a function made for it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gscnn_lightning.errors import SettingError
from gscnn_lightning.parsing import CommandParser, arguments_of


def bake(
    kind: str,
    things: Sequence[Path],
    /,
    oven_size: tuple[int, int] = (1, 2),
    hot: bool = False,
    names: Sequence[str] = (),
    others: Sequence[str] = (),
):
    """Bake things.

    In an oven.

    Examples:
      bake cake   a b

    Args:
        kind: of pastry.
        things: what is baked.
        oven_size: height and width.
        hot: whether it is.
        names: of the things.
        others: those of the baker.
    """
    return kind, list(things), oven_size, hot, list(names), list(others)


def plain(first: int = 1, second: int = 2):
    """Do something.

    Args:
        first: number.
        second: number.
    """
    return first, second


def run(*args, function=bake):
    return CommandParser("gscnn bake", function).run(list(args))


def test_types_come_from_the_signature():
    assert run("cake") == ("cake", [], (1, 2), False, [], [])
    assert run("cake", "a", "b", "--oven_size", "[3,4]", "--hot=true", "--names", "[x,y]") == (
        "cake",
        [Path("a"), Path("b")],
        (3, 4),
        True,
        ["x", "y"],
        [],
    )


@pytest.mark.parametrize(
    "args",
    [
        ["cake", "a", "b", "--oven-size", "[3,4]"],
        ["--oven-size=[3,4]", "cake", "a", "b"],
        ["cake", "a", "--oven_size", "[3,4]", "b"],
    ],
)
def test_order_and_dashes_do_not_matter(args):
    assert run(*args)[:3] == ("cake", [Path("a"), Path("b")], (3, 4))


def test_values_keep_their_dashes():
    assert run("a-b", "--names", "[c-d]")[4] == ["c-d"]


def test_a_switch_needs_no_value():
    assert run("cake", "--hot")[3] is True
    assert run("cake", "--hot", "--names", "[x]")[3:5] == (True, ["x"])


def test_what_has_a_default_may_be_left_out_without_a_name_too():
    def look(file: str = "all", /, hot: bool = False):
        """Look."""
        return file, hot

    assert run(function=look) == ("all", False)
    assert run("cake", "--hot", function=look) == ("cake", True)


def test_other_options_are_handed_on_with_their_values_wherever_they_stand():
    args = ["--config", "c.yaml", "cake", "--trainer.logger=X", "a", "--model.tau", "-1", "--hot", "true", "--flag"]
    kind, things, _, hot, _, others = run(*args)
    assert (kind, things, hot) == ("cake", [Path("a")], True)
    assert others == ["--config", "c.yaml", "--trainer.logger=X", "--model.tau", "-1", "--flag"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["cake", "--ovensize", "[1,2]"], "--ovensize is no setting: did you mean --oven_size?"),
        (["cake", "--hot", "maybe"], "hot"),
        (["cake", "--oven_size", "[1]"], "oven_size"),
        (["cake", "--oven_size"], "--oven_size lacks its value"),
        ([], "kind"),
    ],
)
def test_mistakes_are_one_error_with_a_way_to_more(args, words):
    with pytest.raises(SettingError, match="All settings: gscnn bake --help") as error:
        run(*args)
    assert words in str(error.value)


def test_a_function_that_hands_nothing_on_knows_its_own_options_only():
    assert run("--first", "5", "--second", "3", function=plain) == (5, 3)
    with pytest.raises(SettingError, match="--trainer is no setting"):
        run("--trainer", "x", function=plain)
    with pytest.raises(SettingError, match="'7' is no setting: settings begin with --"):
        run("--first", "5", "7", function=plain)


def test_after_two_dashes_nothing_is_an_option():
    assert run("--hot", "true", "--", "cake", "--config", "-x.png")[:2] == ("cake", [Path("--config"), Path("-x.png")])


def test_what_needs_no_name_may_have_it():
    assert run("a", "b", "--kind", "cake")[:2] == ("cake", [Path("a"), Path("b")])
    assert run("--kind=cake")[:2] == ("cake", [])


def test_dashes_in_what_is_handed_on_are_underscores_too():
    assert run("cake", "--data.val-samples", "a-b", "-c", "x.yaml")[5] == [
        "--data.val_samples",
        "a-b",
        "--config",
        "x.yaml",
    ]


def test_help_has_the_text_the_arguments_and_what_is_handed_on(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for words in (
        "In an oven.\n\nExamples:\n  bake cake   a b\n",
        "of pastry",
        "height and width",
        "those of the baker",
    ):
        assert words in out
    assert "--others" not in out


def test_help_lists_the_arguments_of_the_class_that_gets_the_others(capsys):
    @arguments_of("models/gscnn.py", "GSCNN", first="backbone")
    def build(others: Sequence[str] = ()):
        """Build.

        Args:
            others: those of the network.
        """
        return list(others)

    with pytest.raises(SystemExit):
        run("--help", function=build)
    out = capsys.readouterr().out
    assert "  --shape_channels\n    width of the shape stream's first block" in out
    assert run("resnet18", "--channels", "8", function=build) == ["--backbone", "resnet18", "--channels", "8"]


@pytest.mark.parametrize("args", [["", "x"], ["a", "--out", ""], ["a", "--out="]])
def test_what_is_empty_is_refused(args):
    def command(word: str, inputs: Sequence[str], /, out: str = "out") -> None:
        """Do it."""

    with pytest.raises(SettingError, match="is empty"):
        CommandParser("do", command).run(args)
