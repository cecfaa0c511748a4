import sys

import numpy as np
import pytest

from gscnn_lightning.bench import Timing, print_table, time_side_by_side


def test_functions_take_turns_and_every_round_starts_with_another_one():
    calls = []
    timings = time_side_by_side({name: lambda name=name: calls.append(name) for name in "abc"}, repeats=3)
    assert calls[:6] == list("abcabc")  # to warm up, and for the memory
    assert calls[6:] == list("abcbcacab")
    assert [len(timing.rounds) for timing in timings.values()] == [3, 3, 3]
    assert list(timings) == list("abc")


def test_what_goes_on_and_on_is_timed_in_the_memory_that_it_left(monkeypatch):
    released = []
    monkeypatch.setattr("gscnn_lightning.bench._release_memory", lambda: released.append(len(calls)))
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    time_side_by_side(functions, repeats=2, fresh=False)
    assert calls == [*"ab", *"ab", *"ab", *"ab", *"ba"]  # to warm up, for the memory, to warm up again, two rounds
    assert all(count < 4 for count in released)  # where the memory is measured, and not behind
    calls.clear()
    released.clear()
    time_side_by_side(functions, repeats=2)
    assert released[-4:] == [4, 5, 6, 7]


def test_ratio_is_the_median_of_the_rounds_not_of_the_times():
    slow, fast = Timing((2.0, 20.0, 200.0), None), Timing((1.0, 10.0, 50.0), None)
    assert slow.seconds == 20.0
    assert slow.ratio(fast) == 2.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process its peak memory")
def test_peak_memory_is_that_of_the_call():
    size = 64_000_000
    timings = time_side_by_side({"small": lambda: None, "large": lambda: np.ones(size, np.uint8).sum()}, repeats=1)
    assert timings["large"].memory == pytest.approx(size, rel=0.1)
    assert timings["small"].memory < size / 10


def test_table_shows_times_ratios_and_memory(capsys):
    print_table("a title", {"new": Timing((0.003,), 2_500_000), "old": Timing((0.002,), None)}, "old")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "a title"
    new, old = (next(line for line in lines if f" {name} " in line[:8]) for name in ("new", "old"))
    assert [word for word in new.split() if word[0].isdigit()] == ["3.00", "1.50", "2.5"]
    assert [word for word in old.split() if word[0].isdigit()] == ["2.00", "1.00"]
    assert "unknown" in old


def test_further_columns_and_no_column_for_memory_that_nobody_knows(capsys):
    print_table(
        "a title", {"new": Timing((1.0,), None), "old": Timing((2.0,), None)}, "old", {"speed": {"new": "fast"}}
    )
    out = capsys.readouterr().out
    assert "MB" not in out
    new, old = (next(line for line in out.splitlines() if f" {name} " in line[:8]) for name in ("new", "old"))
    assert "fast" in new
    assert "fast" not in old


def test_names_are_wrapped_before_any_number_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    timings = {f"{name}, channels_last": Timing((1.23456,), 34_567_891_234) for name in ("two-stream", "control")}
    extra = {"GFLOP/s": dict.fromkeys(timings, "9876.5"), "% of\npeak": dict.fromkeys(timings, "100")}
    print_table("a title", timings, "control, channels_last", extra)
    lines = capsys.readouterr().out.splitlines()
    assert " two-stream, channels_last   1234.56    1.00   34567.9    9876.5    100 " in lines
    extra |= {"old\nms": dict.fromkeys(timings, "2345.67"), "old\nratio": dict.fromkeys(timings, "1.90")}
    print_table("a title", timings, "control, channels_last", extra)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    numbers = ["1234.56", "1.00", "34567.9", "9876.5", "100", "2345.67", "1.90"]
    assert sum(line.split() == ["channels_last", *numbers] for line in lines) == 2


def test_no_repeats():
    with pytest.raises(ValueError, match="repeats must be 1 or more, got 0"):
        time_side_by_side({}, repeats=0)
