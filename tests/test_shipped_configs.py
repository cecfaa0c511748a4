import pytest

from gscnn_lightning.errors import SettingError
from gscnn_lightning.shipped_configs import CONFIGS, config_names, find_config


def test_names_are_those_of_the_files():
    assert config_names()[:6] == ["camvid", "camvid_long", "cityscapes", "folder", "scenes", "shards"]
    assert {"recipe/paper", "ablation/control", "network/paper", "logger/wandb"} < set(config_names())
    assert not any(name.startswith(("sweep/", "classes/")) for name in config_names())
    assert config_names("sweep") == ["backbone_gradient", "loss_weights", "optimizer"]


def test_a_name_means_a_shipped_config_and_a_path_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("scenes") == CONFIGS / "scenes.yaml"
    assert find_config("recipe/paper") == CONFIGS / "recipe/paper.yaml"
    assert find_config("optimizer", "sweep") == CONFIGS / "sweep/optimizer.yaml"
    (tmp_path / "scenes").write_text("model: {}")
    assert find_config("scenes").read_text() == "model: {}", "a file of this very name comes first"
    for path in ("scenes.yaml", "./camvid", "../configs/camvid", str(CONFIGS / "camvid"), "~nosuchuser/x", 5000 * "x"):
        with pytest.raises(SettingError, match=r"there is no file '"):
            find_config(path)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("scens", "", "did you mean scenes?"),
        ("recipe/papers", "", r"did you mean recipe/paper\?"),
        ("nothing/like/it", "", "shipped configs are camvid, camvid_long, cityscapes"),
        ("../setup", "", "there is no file"),
        ("gatet", "ablation", "did you mean gated?"),
    ],
)
def test_what_is_neither_is_said(name, kind, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=words):
        find_config(name, kind)
