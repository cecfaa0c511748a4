"""What one benchmark found: printed as it comes, written as JSON, and compared with what an earlier one wrote."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gscnn_lightning.bench import Timing, print_table
from gscnn_lightning.bench.machine import Precision, convolution_peak, machine, peak_shape
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import different_settings
from gscnn_lightning.run_folder.score_files import write_json
from gscnn_lightning.terminal import say

_MACHINE = ("processor", "gpus", "device", "threads", "torch", "gscnn_lightning")
"""What an old measurement has to share with a new one if their milliseconds are to be compared."""


class BenchRecord:
    """Tables and remarks of one benchmark.

    Args:
        bench: its word behind ``gscnn bench``.
        settings: what it was asked to measure, as plain data.
        device: what it computes on.
        precision: in which precision.
        out: JSON file to write; None for none.
        compare: JSON file that the same benchmark wrote before; None for none.

    Raises:
        SettingError: ``compare`` cannot be read or is of something else, or ``out`` is a folder.
    """

    def __init__(
        self,
        bench: str,
        settings: Mapping[str, Any],
        device: torch.device,
        precision: Precision,
        out: Path | None = None,
        compare: Path | None = None,
    ) -> None:
        # Before minutes of measuring, not behind them.
        self._old = None if compare is None else read_record(compare, bench)
        if out is not None and out.is_dir():
            raise SettingError(f"{out} is a folder: give --out a file, such as {out / 'bench.json'}")
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        self._out, self._compare = out, compare
        self._device, self._precision = device, precision
        self._peak = convolution_peak(device, precision)
        self._content: dict[str, Any] = {
            "bench": bench,
            "environment": machine(device),
            "precision": precision,
            "settings": json.loads(json.dumps(settings, default=str)),
            "tables": [],
            "remarks": {},
        }
        self._introduce()

    def add(self, title: str, timings: Mapping[str, Timing], baseline: str, flop: Mapping[str, int]) -> None:
        """Print a table, and keep it.

        Args:
            title: heading, by which an older table is found.
            timings: what was measured, by row.
            baseline: the row that ratios refer to.
            flop: floating-point operations of one call, by row; 0 or left out where none are counted.
        """
        if any(flop.values()):
            # Before and after what it is compared with: the machine may have been slowed down while it was looked for.
            self._peak = max(self._peak, convolution_peak(self._device, self._precision))
        rows = [self._row(name, timing, timings[baseline], flop.get(name, 0)) for name, timing in timings.items()]
        extra: dict[str, dict[str, str]] = {}
        counted = {row["name"]: row for row in rows if row["gflop"]}
        if counted:  # there is more than element-wise operations
            unit, rates = _shown_rates([row["gflops"] for row in counted.values()])
            extra[unit] = dict(zip(counted, rates, strict=True))
            extra["% of\npeak"] = {name: f"{100 * row['utilisation']:.0f}" for name, row in counted.items()}
        if self._old is not None:
            old = _rows(self._old, title)
            extra["old\nms"] = {name: f"{row['seconds'] * 1e3:.2f}" for name, row in old.items()}
            extra["old\nratio"] = {name: f"{row['ratio']:.2f}" for name, row in old.items()}
        print_table(title, timings, baseline, extra)
        if counted:
            unit, (peak,) = _shown_rates([self._peak / 1e9])
            _, channels, side = peak_shape(self._device)
            say(f"peak: {peak} {unit}, a 3x3 convolution of {channels} to {channels} channels on {side}x{side} pixels")
        self._content["tables"].append({"title": title, "baseline": baseline, "rows": rows})

    def remark(self, name: str, value: Any, text: str) -> None:  # noqa: ANN401
        """Print a line, and keep what it says.

        Args:
            name: what to keep it as.
            value: plain data.
            text: the line.
        """
        say(text)
        self._content["remarks"][name] = value

    def keep(self, group: str, name: str, value: Any) -> None:  # noqa: ANN401
        """Keep what is shown elsewhere.

        Args:
            group: what it belongs to.
            name: of one of its values.
            value: plain data.
        """
        self._content["remarks"].setdefault(group, {})[name] = value

    def save(self) -> None:
        """Write the JSON file, if one was asked for."""
        if self._out is not None:
            write_json(self._out, {**self._content, "peak_gflops": self._peak / 1e9})
            say(f"written to {self._out}")

    def _row(self, name: str, timing: Timing, baseline: Timing, flop: int) -> dict[str, Any]:
        rate = flop / timing.seconds
        return {
            "name": name,
            "rounds": list(timing.rounds),
            "seconds": timing.seconds,
            "ratio": timing.ratio(baseline),
            "memory": timing.memory,
            "gflop": flop / 1e9,
            "gflops": rate / 1e9,
            "utilisation": rate / self._peak,
        }

    def _introduce(self) -> None:
        here = self._content["environment"]
        what = here["gpus"][0] if here["gpus"] else here["processor"]
        threads = f"{here['threads']} thread{'s' if here['threads'] > 1 else ''}"
        say(f"{what}, {threads}, {self._content['precision']}, torch {here['torch']}")
        if self._old is not None:
            there = self._old["environment"]
            different = different_settings({k: there.get(k) for k in _MACHINE}, {k: here.get(k) for k in _MACHINE})
            different += different_settings(
                {"precision": self._old["precision"], **self._old["settings"]},
                {"precision": self._content["precision"], **self._content["settings"]},
            )
            say(f"compared with {self._compare}: {_said(different)}")


def read_record(path: Path, bench: str) -> dict[str, Any]:
    """What a benchmark wrote.

    Args:
        path: its JSON file.
        bench: its word behind ``gscnn bench``.

    Raises:
        SettingError: the file is missing, is none of a benchmark, or of another one.
    """
    remedy = f"give a file that gscnn bench {bench} --out wrote"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise SettingError(f"{path} cannot be read ({reason}): {remedy}") from error
    found = content.get("bench") if isinstance(content, dict) else None
    if found is None:
        raise SettingError(f"{path} is no file of gscnn bench: {remedy}")
    if found != bench:
        raise SettingError(f"{path} is of gscnn bench {found}: {remedy}")
    try:
        for table in content["tables"]:
            for row in _rows(content, table["title"]).values():
                float(row["seconds"]), float(row["ratio"])
        dict(content["environment"]), dict(content["settings"]), content["precision"]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is damaged ({type(error).__name__}: {error}): {remedy}") from error
    return content


def _rows(content: Mapping[str, Any], title: str) -> dict[str, dict[str, Any]]:
    """The rows of a table by name; none if there is no such table."""
    return {row["name"]: row for table in content["tables"] if table["title"] == title for row in table["rows"]}


def _shown_rates(gflops: Sequence[float]) -> tuple[str, list[str]]:
    """Operations per second as a unit and numbers of it: TFLOP/s if there are 10,000 GFLOP/s or more."""
    unit, size = ("TFLOP/s", 1e3) if max(gflops) >= 1e4 else ("GFLOP/s", 1)
    return unit, [f"{rate / size:.1f}" for rate in gflops]


def _said(different: Sequence[str]) -> str:
    if not different:
        return "same machine and settings"
    return f"OTHER machine or settings, old and new: {'; '.join(different[:6])}"
