"""`gscnn publish`, and the folders that it makes in place of checkpoints."""

import hashlib
import json
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import yaml
from tests.made_run import write_run
from tests.tiny import write_checkpoint

from gscnn_lightning.checkpoint import load_task
from gscnn_lightning.checkpoint_io import WholeCheckpoints
from gscnn_lightning.classes import ClassTable
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.errors import WeightsError
from gscnn_lightning.exporting.facts import facts_of
from gscnn_lightning.models.weights import read_encoder_weights
from gscnn_lightning.studies.sides import is_network, members_of

hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

TABLE = ClassTable(("road", "car", "a|b *c*"), ((128, 64, 128), (0, 0, 142), (220, 20, 60)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a network, scores of sixty images, and a contact sheet."""
    path = tmp_path_factory.mktemp("runs") / "run"
    write_run(path, names=TABLE.names, images=2)
    rows = [f"drive/{n:03},{n},{0.5 + 0.01 * n},{0.6 + 0.01 * n},{0.4 + 0.02 * n}" for n in range(60)]
    (path / "image_scores.csv").write_text("\n".join(["name,index,boundary_f1_1px,boundary_f1_3px,miou", *rows]) + "\n")
    cv2.imwrite(str(path / "contact_sheet.png"), np.full((40, 60, 3), 90, np.uint8))
    task = write_checkpoint(path / "checkpoints/best.ckpt", TABLE, class_colors=TABLE.colors)
    content = torch.load(path / "checkpoints/best.ckpt")
    torch.save({**content, "epoch": 3}, path / "checkpoints/best.ckpt")
    torch.save({**content, "epoch": 7}, path / "checkpoints/last.ckpt")
    return path, task


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "net"
    tools(["publish", str(run[0]), "--out", str(out), "--license", "cc-by-4.0"])
    return out


def card_of(folder):
    _, metadata, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), text


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        tools([str(a) for a in args])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_the_card_says_what_the_files_of_the_run_say(published):
    metadata, text = card_of(published)
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["model-index"][0]["results"][0]["metrics"][0] == {
        "type": "mean_iou",
        "name": "mean IoU",
        "value": 0.5,
    }
    assert "| mean IoU | 50.0 | 99.0 [" in text  # the mean of what image_scores.csv has
    assert "blocks of 10 neighbouring frames" in text
    assert r"| a\|b \*c\* | `#dc143c` |" in text
    assert "](picture.jpg)" in text
    assert (published / "picture.jpg").is_file()


def test_the_metadata_are_read_by_the_library(published):
    data = hub.ModelCard.load(published / "README.md").data
    assert data.library_name == "gscnn-lightning"
    assert data.eval_results[0].metric_value == 0.5


def test_nothing_of_the_machine_is_on_the_card(published, run):
    text = (published / "README.md").read_text(encoding="utf-8") + (published / "config.json").read_text(
        encoding="utf-8"
    )
    assert str(run[0]) not in text
    assert "a&b.yaml" not in text  # of the command that trained


def test_a_checkpoint_that_the_scores_are_not_of_is_published_without(run, tmp_path, capsys):
    tools(["publish", str(run[0] / "checkpoints/last.ckpt"), "--out", str(tmp_path / "net"), "--picture", "none"])
    assert "those of the run are of epoch 4, the checkpoint of epoch 8" in capsys.readouterr().err
    metadata, text = card_of(tmp_path / "net")
    assert "model-index" not in metadata
    assert "None were measured" in text
    assert not (tmp_path / "net/picture.jpg").exists()


def test_the_card_names_extensions(published, tmp_path):
    assert "extensions" not in card_of(published)[1]
    settings = {"refine": "convex", "stream_start": "skip"}
    for stream, told in ((True, "`refine=convex`, `stream_start=skip`"), (False, "`refine=convex`")):
        write_checkpoint(tmp_path / f"{stream}.ckpt", TABLE, class_colors=TABLE.colors, shape_stream=stream, **settings)
        out = tmp_path / f"net_{stream}"
        tools(["publish", str(tmp_path / f"{stream}.ckpt"), "--out", str(out), "--picture", "none"])
        assert f"It has extensions that are not in the papers: {told}.\n" in card_of(out)[1]


def test_a_photo_is_predicted_for_the_card(run, tmp_path):
    cv2.imwrite(str(tmp_path / "street.png"), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    tools(["publish", str(run[0]), "--out", str(tmp_path / "net"), "--picture", str(tmp_path / "street.png")])
    assert cv2.imread(str(tmp_path / "net/picture.jpg")).shape == (40, 150, 3)


def test_the_folder_takes_the_place_of_the_checkpoint(run, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    fetch = mock.create_autospec(hub.snapshot_download, return_value=str(published))
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    sources = {"ckpt": run[0] / "checkpoints/best.ckpt", "folder": published, "hub": "hf:some/net"}
    for name, source in sources.items():
        tools(["predict", str(source), "photo.png", "--out", name, "--formats", "[labels,color]"])
    for kind in ("labels", "color"):
        made = [(tmp_path / name / f"photo_{kind}.png").read_bytes() for name in sources]
        assert made[0] == made[1] == made[2]
    notes = [json.loads((tmp_path / name / "predictions.json").read_text())["checkpoint"] for name in ("folder", "hub")]
    assert notes[0] == notes[1]


def test_the_task_of_a_folder_is_that_of_the_checkpoint(run, published):
    task = load_task(str(published), "cpu")
    image = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(task(image).seg_logits, run[1](image).seg_logits)
    assert (tuple(task.class_names), tuple(map(tuple, task.class_colors))) == (TABLE.names, TABLE.colors)
    assert list(task.settings.boundary_tolerances) == [1, 3]


def test_comparisons_and_validations_take_the_folder(run, published):
    """As `gscnn compare` and ``gscnn-fit validate --ckpt_path`` read it."""
    assert members_of(str(published)) == (str(published),)
    assert is_network(str(published))
    content = WholeCheckpoints().load_checkpoint(str(published))
    run[1].check_checkpoint(content)
    with pytest.raises(WeightsError, match="has weights alone, without the state of a training"):
        run[1].check_checkpoint(content, fit=True)


def test_an_export_of_the_folder_names_its_weights(published):
    facts = facts_of(load_task(str(published), "cpu"), str(published), gates=True, size=None)
    assert facts.checkpoint == hashlib.sha256((published / "model.safetensors").read_bytes()).hexdigest()
    assert facts.class_names == TABLE.names


def test_a_training_can_start_from_its_backbone(run, published):
    own = read_encoder_weights(run[0] / "checkpoints/best.ckpt")
    assert own
    assert all(torch.equal(tensor, own[name]) for name, tensor in read_encoder_weights(published).items())


def test_an_upload_is_asked_for_by_name(run, tmp_path, monkeypatch, capsys):
    api = mock.create_autospec(hub.HfApi, instance=True)
    api.create_repo.return_value = mock.Mock(repo_id="some/net")
    api.upload_folder.return_value = mock.Mock(commit_url="https://hub/some/net/commit/1")
    monkeypatch.setattr(hub, "HfApi", mock.create_autospec(hub.HfApi, return_value=api))
    tools(["publish", str(run[0]), "--out", str(tmp_path / "net"), "--push", "hf:some/net", "--private", "true"])
    assert "uploaded: https://hub/some/net/commit/1" in capsys.readouterr().out
    assert api.upload_folder.call_args.kwargs["folder_path"] == tmp_path / "net"
    assert 'GSCNN.from_pretrained("some/net")' in (tmp_path / "net/README.md").read_text(encoding="utf-8")


def test_what_cannot_be_published_is_refused_in_one_line(run, published, tmp_path, capsys):
    assert "is no name on the hub" in refused(capsys, "publish", run[0], "--out", tmp_path / "a", "--push", "x/y/z")
    assert not (tmp_path / "a").exists()
    assert "has a network already" in refused(capsys, "publish", run[0], "--out", published)
    assert "without checkpoints/best.ckpt" in refused(capsys, "publish", tmp_path, "--out", tmp_path / "b")
    assert "does not exist" in refused(capsys, "publish", tmp_path / "no.ckpt", "--out", tmp_path / "b")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.json").write_text("{}")
    assert "has config.json alone" in refused(capsys, "predict", tmp_path / "half", run[0])
