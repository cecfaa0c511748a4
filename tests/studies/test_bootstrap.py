"""Intervals over blocks of frames, on drives whose frames resemble each other by a known amount."""

import numpy as np
import pytest

from gscnn_lightning.errors import SettingError
from gscnn_lightning.studies.bootstrap import blocks_of, bootstrap_weights, drives, percentile_interval

DRIVES, FRAMES, LENGTH = 10, 100, 20
NAMES = [f"drive{drive:02}_{frame:06}" for drive in range(DRIVES) for frame in range(FRAMES)]


def autoregressive(rng, count, correlation=0.7):
    """(count, N) frame effects of mean 0: every drive an AR(1) process."""
    noise = rng.standard_normal((count, DRIVES, FRAMES))
    effects = np.empty_like(noise)
    effects[..., 0] = noise[..., 0]
    for frame in range(1, FRAMES):
        effects[..., frame] = correlation * effects[..., frame - 1] + np.sqrt(1 - correlation**2) * noise[..., frame]
    return effects.reshape(count, -1)


def constant_in_blocks(rng, count):
    """(count, N) frame effects of mean 0: the same for 20 frames, and a little of each frame's own."""
    shared = np.repeat(rng.standard_normal((count, DRIVES * FRAMES // LENGTH)), LENGTH, axis=1)
    return shared + 0.3 * rng.standard_normal((count, DRIVES * FRAMES))


@pytest.mark.parametrize("effects", [autoregressive, constant_in_blocks])
def test_intervals_of_blocks_hold_where_those_of_frames_do_not(effects):
    """In 500 repetitions, 95 % intervals of the mean over frames."""
    rng = np.random.default_rng(0)
    repetitions = effects(rng, 500)
    share = {}
    for length in (1, LENGTH):
        weights = bootstrap_weights(blocks_of(NAMES, length), 400, rng)
        means = repetitions @ weights.T / weights.sum(1)
        low, high = np.quantile(means, [0.025, 0.975], axis=1)
        share[length] = np.mean((low <= 0) & (high >= 0))
    assert 0.90 <= share[LENGTH] <= 0.98
    assert share[1] < 0.75


def test_a_block_is_of_neighbours_in_one_drive():
    rng = np.random.default_rng(1)
    names = [f"{drive}_{frame}" for drive in ("a", "b") for frame in range(7)]
    order = rng.permutation(len(names))
    blocks = blocks_of([names[index] for index in order], 3)
    members = [{names[order[place]] for place in np.flatnonzero(blocks == block)} for block in range(blocks.max() + 1)]
    expected = [
        ["a_0", "a_1", "a_2"],
        ["a_3", "a_4", "a_5"],
        ["a_6"],
        ["b_0", "b_1", "b_2"],
        ["b_3", "b_4", "b_5"],
        ["b_6"],
    ]
    assert members == [set(block) for block in expected]
    assert (blocks_of(names, 1) == np.arange(len(names))).all()


def test_drives_of_data_sets():
    cityscapes = ["val/frankfurt_000000_000294", "val/frankfurt_000000_000576", "val/frankfurt_000001_000538"]
    cityscapes += ["val/frankfurt_000001_000900", "val/lindau_000000_000019", "val/lindau_000001_000019"]
    found = drives(cityscapes)
    assert found == 2 * ["val/frankfurt_000000_"] + 2 * ["val/frankfurt_000001_"] + 2 * ["val/lindau_"]
    assert drives(["0016E5_07959", "0016E5_07961", "Seq05VD_f00000", "Seq05VD_f00030"]) == (
        2 * ["0016E5_"] + 2 * ["Seq05VD_f"]
    )
    assert drives(["x/one", "x/two", "y/three"]) == ["x/", "x/", "y/"]


def test_mistakes_are_named():
    with pytest.raises(SettingError, match="block is 0: give the number of neighbouring frames"):
        blocks_of(["a", "b"], 0)
    with pytest.raises(SettingError, match="block is 5, and the 3 frames are one block"):
        blocks_of(["a_1", "a_2", "a_3"], 5)


def test_nothing_to_resample_has_no_interval():
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
    assert bootstrap_weights(np.array([0, 1]), 3, np.random.default_rng(0)).sum(1).tolist() == [2, 2, 2]
