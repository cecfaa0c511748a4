"""``gscnn-fit``, with all its callbacks, goes on from any step as if it had never stopped."""

import csv
import json
import re

import pytest
import torch
from tests.tiny import write_config

from gscnn_lightning.cli import main

EVERY_STEP = [
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.dirpath=steps",
    "--trainer.callbacks.filename={step}",
    "--trainer.callbacks.every_n_train_steps=1",
    "--trainer.callbacks.save_top_k=-1",
]
QUIET = ["--trainer.enable_progress_bar", "false", "--data.num_workers", "0", "--trainer.num_sanity_val_steps", "0"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / "tiny.yaml", epochs=3))


def end_of(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def assert_same_end(one, other):
    a, b = end_of(one), end_of(other)
    assert a["global_step"] == b["global_step"]
    for part in {"state_dict", "current_model_state", "averaging_state"} & {*a}:
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), (part, name)
    for key, state in a["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, b["optimizer_states"][0]["state"][key][name]), (key, name)
    assert torch.equal(a["random_states"][0]["torch"], b["random_states"][0]["torch"])


def rows_of(run):
    """Values of metrics.csv by step and name."""
    with (run / "metrics.csv").open() as file:
        return {
            (int(row["step"]), name): value
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name not in ("step", "epoch")
        }


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ((), (1, 4, 6)),
        (("--trainer.check_val_every_n_epoch", "2"), (10,)),
        (("--trainer.val_check_interval", "2"), (2,)),
        (("--config", "recipe/ema", "--trainer.callbacks.update_starting_at_step", "2"), (6,)),
    ],
    ids=["every epoch", "at the end", "within", "averaged"],
)
def test_any_step_goes_on_to_the_same_end(options, steps, config, tmp_path, capsys):
    main(["fit", "--config", config, *QUIET, *options, *EVERY_STEP])
    whole = tmp_path / "runs/tiny/version_0"
    losses = re.findall(r"^epoch \d/3  loss ([\d.]+)", capsys.readouterr().out, re.MULTILINE)
    expected = rows_of(whole)
    for version, step in enumerate(steps, start=1):
        main(["fit", "--config", config, *QUIET, *options, "--ckpt_path", f"steps/step={step}.ckpt"])
        run = tmp_path / f"runs/tiny/version_{version}"
        assert_same_end(run, whole)
        found = rows_of(run)
        assert found == {place: value for place, value in expected.items() if place in found}
        assert {step for step, _ in found} == {place for place, _ in expected if place >= step}
        said = re.findall(r"^epoch \d/3  loss ([\d.]+)", capsys.readouterr().out, re.MULTILINE)
        assert said == losses[step // 4 :]  # of the epoch that was interrupted, all of it
        assert (run / "scores_val.json").is_file()


def test_run_that_was_renamed_goes_on_where_its_name_is_free_again(config, tmp_path):
    """With a best score that no later epoch has; its checkpoint is not where it was written."""
    main(["fit", "--config", config, *QUIET, "--trainer.max_epochs", "1"])
    run, old = tmp_path / "runs/tiny/version_0", tmp_path / "old"
    run.rename(old)
    content = torch.load(old / "checkpoints/last.ckpt", weights_only=True)
    (best,) = (state for name, state in content["callbacks"].items() if "'monitor': 'val/miou'" in name)
    assert best["dirpath"] == "runs/tiny/version_0/checkpoints"
    best |= {"best_model_score": torch.tensor(2.0), "kth_value": torch.tensor(2.0)}
    best["best_k_models"] = dict.fromkeys(best["best_k_models"], torch.tensor(2.0))
    torch.save(content, old / "checkpoints/last.ckpt")
    main(["fit", "--config", config, *QUIET, "--ckpt_path", "old/checkpoints/last.ckpt"])
    assert (run / "checkpoints/best.ckpt").is_file()
    assert json.loads((run / "scores_val.json").read_text())["epoch"] in (1, 2)


def test_checkpoints_within_an_epoch_are_written_by_the_clock(config, tmp_path, capsys):
    one_epoch = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0", "--checkpoint.monitor", "null"]
    seen = []
    save = torch.save

    def noting(content, file):
        seen.append((content["global_step"], sorted(path.name for path in tmp_path.rglob("last*.ckpt"))))
        save(content, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", noting)
        main(["fit", "--config", config, *QUIET, *one_epoch, "--checkpoint_minutes", "1e-9"])
        # At the end of the epoch best.ckpt is written, too.
        assert [step for step, _ in seen] == [1, 2, 3, 4, 4]
        assert seen[1][1] == ["last.ckpt"]
        seen.clear()
        main(["fit", "--config", config, *QUIET, *one_epoch, "--checkpoint_minutes", "0"])
        assert [step for step, _ in seen] == [4, 4]
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", config, "--checkpoint_minutes", "-1"])
    assert stop.value.code == 2
    assert "checkpoint_minutes is -1.0: give minutes" in capsys.readouterr().err
