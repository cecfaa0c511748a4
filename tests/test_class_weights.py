"""``--model.class_weights`` and ``--model.layer_decay`` in trainings."""

import numpy as np
import pytest
import torch
from tests.test_task import fit, scenes
from tests.tiny import SETTINGS, write_config

from gscnn_lightning import GSCNNTask
from gscnn_lightning.cli import main
from gscnn_lightning.data.class_shares import class_shares
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.losses import balanced_class_weights


class Frames(Source):
    """Two frames of three classes, counted as often as they are read."""

    def __init__(self, maps, kept=None):
        self.maps, self.kept, self.reads = maps, kept, 0

    def __len__(self):
        return len(self.maps)

    def name(self, index):
        return f"{index}"

    def load(self, index):
        self.reads += 1
        return np.zeros((2, 3, 3), np.uint8), self.maps[index]

    def fingerprint(self):
        return self.kept


MAPS = [np.array([[0, 0, 255], [2, 0, 0]], np.uint8), np.array([[0, 2, 2], [255, 255, 2]], np.uint8), None]


def test_shares_are_counted_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = Frames(MAPS, "abc")
    for _ in range(2):
        assert class_shares(source, 3, with_bar=False) == [5 / 9, 0.0, 4 / 9]
        assert source.reads == 3
    (file,) = (tmp_path / "gscnn-lightning").iterdir()
    file.write_text("[1, 2")  # damaged
    assert class_shares(source, 3, with_bar=False) == [5 / 9, 0.0, 4 / 9]
    drawn = Frames(MAPS[:2] * 300)
    assert class_shares(drawn, 3, with_bar=False)[1] == 0
    assert drawn.reads == 300, "not more than 500, as they are counted at every start"
    with pytest.raises(DataError, match="all 1 label maps are void: no class has pixels"):
        class_shares(Frames([np.full((2, 3), 255, np.uint8)]), 3, with_bar=False)


def test_automatic_weights_are_those_of_the_training_split_and_stay_in_the_checkpoint(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    settings = {key: value for key, value in SETTINGS.items() if key != "boundary_tolerances"}
    task = GSCNNTask(19, **settings, class_weights="auto")
    assert torch.equal(task.loss.class_weights, torch.ones(19))
    task, trainer = fit(tmp_path, 1, task, limit_train_batches=1, limit_val_batches=1)
    shares = scenes().class_shares()
    assert task.loss.class_weights.tolist() == pytest.approx(balanced_class_weights(shares), rel=1e-6)
    assert "Class weights (share of the labelled training pixels): 0 " in caplog.text
    assert "(never there)" in caplog.text or all(shares)
    path = trainer.checkpoint_callback.best_model_path
    again = GSCNNTask.load_from_checkpoint(path)
    assert torch.equal(again.loss.class_weights, task.loss.class_weights)
    # A training that goes on does not look at the data again.
    monkeypatch.setattr("gscnn_lightning.data.base.class_shares", lambda *_, **__: pytest.fail("counted again"))
    fresh = GSCNNTask(19, **settings, class_weights="auto")
    trainer = type(trainer)(
        max_epochs=2, limit_train_batches=1, limit_val_batches=0, logger=False, default_root_dir=tmp_path,
        accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(fresh, scenes(), ckpt_path=path)
    assert torch.equal(fresh.loss.class_weights, task.loss.class_weights)


def test_data_that_cannot_count_are_told_to_give_numbers(tmp_path):
    task = GSCNNTask(19, **SETTINGS, class_weights="auto")
    import pytorch_lightning as pl

    data = scenes()
    data.setup("fit")
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(SettingError, match=r"class_weights is auto, and loaders without a data module cannot tell"):
        trainer.fit(task, data.train_dataloader())


def test_checkpoints_from_before_load_and_have_no_weights():
    task = GSCNNTask(19, **SETTINGS)
    assert not any("class_weights" in name for name in task.state_dict())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("--model.class_weights=[1,2]", "class_weights has 2 weights for 19 classes: give one for each"),
        ("--model.layer_decay=1.5", "layer_decay is 1.5: give a factor from layer to layer above 0 and at most 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(setting, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "tiny.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "tiny.yaml", setting])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("layer_decay", [0, -0.5, 1.01, float("nan"), "0.5"])
def test_rates_that_do_not_fall_are_refused(layer_decay):
    with pytest.raises(SettingError, match=r"layer_decay is .*: give a factor from layer to layer above 0"):
        GSCNNTask(19, **SETTINGS, layer_decay=layer_decay)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_rates_of_layers_compose_with_the_backbones(backbone):
    settings = {**SETTINGS, "backbone": backbone, "warmup_steps": 0, "poly_power": 0}
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1, "weight_decay": 0.3}}
    task = GSCNNTask(19, **settings, optimizer=adam, backbone_lr_scale=0.5, layer_decay=0.8)
    groups = task.configure_optimizers().param_groups
    names = {id(p): n for n, p in task.network.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found.keys() == {n for n, p in task.network.named_parameters() if p.requires_grad}
    scales = {f"backbone.{n}": s for n, s in task.network.backbone.layer_scales(0.8).items()}
    fresh = {f"backbone.{n}" for n in task.network.backbone.fresh_parameters()}
    for name, (lr, decay) in found.items():
        inside = name.startswith("backbone.") and name not in fresh
        assert lr == pytest.approx(0.1 * (0.5 * scales[name] if inside else 1)), name
        spared = task.network.get_parameter(name).ndim == 1 or name.endswith(("pos_embed", "cls_token"))
        assert decay == (0 if spared else 0.3), name
    assert min(lr for lr, _ in found.values()) == pytest.approx(0.05 * 0.8 ** (7 if backbone == "test_vit" else 5))


def test_no_layer_decay_leaves_the_groups_as_they_were():
    task = GSCNNTask(19, **SETTINGS, poly_power=0)
    groups = task.configure_optimizers().param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.01, 1e-4), (0.01, 0.0), (0.01, 1e-4), (0.01, 0.0)]
