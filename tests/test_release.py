"""The published network through the published file: names, forms, refusals, and every number that it computes."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch
from tests import published

from gscnn_lightning import GSCNNTask
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.errors import WeightsError
from gscnn_lightning.losses import GSCNNLoss
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.weights import read_backbone_weights
from gscnn_lightning.release import SETTINGS, load_release_checkpoint, read_release_checkpoint, released_name
from gscnn_lightning.task import MACHINE_SETTINGS, PREDICTION_SETTINGS

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def names(reference_dir):
    return published.shapes(reference_dir)


@pytest.fixture(scope="module")
def light(names):
    """A published state dict whose tensors repeat one number: it fits, and takes no room."""
    return published.light(names)


def snapshot(state, mean_iu=0.8):
    """What the published program saves during training."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.01, momentum=0.9).state_dict()
    state = {f"module.{name}": value for name, value in state.items()}
    return {"state_dict": state, "optimizer": optimizer, "epoch": 174, "mean_iu": mean_iu, "command": "train.py"}


def save(content, path, old_format=False):
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    return path


def test_weight_fill_is_the_stated_one(reference_dir, names):
    stated = json.loads((reference_dir / "weight_fill_check.json").read_text())
    for key, check in stated["check"].items():
        tensor = published.fill(key, names[key], stated["seed"]).double()
        assert tensor.sum().item() == pytest.approx(check["sum"], rel=1e-9, abs=1e-9), key
        assert tensor.abs().sum().item() == pytest.approx(check["abs_sum"], rel=1e-9), key
        np.testing.assert_allclose(tensor.flatten()[:3], np.array(check["first"]), rtol=1e-7, err_msg=key)


def test_names_and_shapes_are_one_to_one_with_the_published_network(reference_dir, names):
    with torch.device("meta"):
        net = GSCNN(19, pretrained=False, **SETTINGS)
    state = {k: v for k, v in net.state_dict().items() if k not in ("backbone.mean", "backbone.std")}
    own = {released_name(k): tuple(v.shape) for k, v in state.items()}
    assert len(own) == len(state)
    unused = {"dsn1.weight": (1, 64, 1, 1), "dsn1.bias": (1,)}
    assert own | unused == names
    stated = json.loads((reference_dir / "state_dict_keys.json").read_text())
    assert sum(p.numel() for p in net.parameters()) + 65 == stated["gscnn_num_parameters"] == 137_278_190


FORMS = {
    "bare": lambda s: s,
    "prefix": lambda s: {f"module.{k}": v for k, v in s.items()},
    "snapshot": snapshot,
    "without counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    "without dsn1": lambda s: {k: v for k, v in s.items() if not k.startswith("dsn1")},
    "NumPy score": lambda s: snapshot(s, np.float64(0.8)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_file_is_read(form, light, tmp_path):
    path = save(FORMS[form](light), tmp_path / "release.pth", old_format=form in ("prefix", "NumPy score"))
    weights = read_release_checkpoint(path)
    counters = {n for n in light if n.endswith("num_batches_tracked")} if form == "without counters" else set()
    assert {released_name(name) for name in weights} == set(light) - {"dsn1.weight", "dsn1.bias"} - counters
    assert all(torch.equal(value, light[released_name(name)]) for name, value in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["snapshot", "without counters"])
def test_network_holds_the_weights_of_the_file(form, light, tmp_path):
    net = load_release_checkpoint(save(FORMS[form](light), tmp_path / "release.pth"))
    assert not net.training
    assert net.image_gradient.kind == "release"
    assert net.backbone.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    for name, value in net.state_dict().items():
        if name not in ("backbone.mean", "backbone.std"):
            lost = form == "without counters" and name.endswith("num_batches_tracked")
            assert (value == (0 if lost else light[released_name(name)])).all(), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("gate2.weight"), r"1 names missing \['gate2.weight'\], 0 unexpected"),
        (lambda s: s.update(extra=torch.zeros(1)), r"0 names missing \[\], 1 unexpected \['extra'\]"),
        (
            lambda s: s.update({"d1.weight": torch.zeros(32, 60, 1, 1)}),
            r"1 of another shape \['d1.weight \(32, 60, 1, 1\) instead of \(32, 64, 1, 1\)'\]",
        ),
        (lambda s: s.update({"dsn1.weight": torch.zeros(2, 64, 1, 1)}), r"1 unexpected \['dsn1.weight'\]"),
        (
            lambda s: s.update({"final_seg.6.weight": torch.zeros(11, 256, 1, 1)}),
            r"final_seg.6.weight \(11, 256, 1, 1\), but the published checkpoint has 19 classes: give num_classes",
        ),
        (lambda s: s.pop("final_seg.6.weight"), r"missing \['final_seg.6.weight'\]"),
        (lambda s: s.update({"classifier.fc.weight": torch.zeros(1)}), "ImageNet trunk, .* as backbone_weights"),
        (lambda s: s.clear(), r"names missing \['mod1.conv1.weight'"),
    ],
)
def test_file_that_does_not_fit_is_refused_with_names_and_shapes(change, message, light, tmp_path):
    state = dict(light)
    change(state)
    with pytest.raises(WeightsError, match=message):
        read_release_checkpoint(save(snapshot(state), tmp_path / "release.pth"))


def test_nothing_in_a_file_is_executed(light, tmp_path):
    class Payload:
        def __reduce__(self):
            return (exec, ("open('executed', 'w')",))

    for old_format in (False, True):
        path = save({**snapshot(light), "command": Payload()}, tmp_path / "release.pth", old_format)
        with pytest.raises(WeightsError, match=r"cannot be read \(it holds Python objects, \S*exec first\)"):
            load_release_checkpoint(path)
    with pytest.raises(WeightsError, match="does not exist"):
        load_release_checkpoint(tmp_path / "none.pth")


@pytest.mark.slow
def test_another_class_count_is_possible_when_asked_for(light, tmp_path, caplog):
    path = save(snapshot(light), tmp_path / "release.pth")
    with caplog.at_level(logging.WARNING):
        net = load_release_checkpoint(path, num_classes=11)
    assert "final_seg.6.weight (19, 256, 1, 1) was left out, as 11 classes were asked for" in caplog.text
    assert net.decoder[2].weight.shape == (11, 256, 1, 1)
    assert net.decoder[2].weight.std() > 0.05
    assert (net.shape_stream.boundary.weight == light["fuse.weight"]).all()
    # A file of 11 classes needs no layer left out.
    own = {**light, "final_seg.6.weight": torch.full((1,), 0.25).expand(11, 256, 1, 1)}
    caplog.clear()
    net = load_release_checkpoint(save(own, path), num_classes=11)
    assert (net.decoder[2].weight == 0.25).all()
    assert not caplog.text


def test_imagenet_trunk_comes_through_the_backbone_weights(reference_dir, tmp_path):
    light = published.light(published.shapes(reference_dir, "wider_resnet38_a2_imagenet"))
    path = save({"state_dict": {f"module.{k}": v for k, v in light.items()}}, tmp_path / "trunk.pth", old_format=True)
    state = read_backbone_weights(path, "wider_resnet38_a2")
    assert len(state) == 228
    assert torch.equal(state["layer7.0.shortcut.weight"], light["mod7.block1.proj_conv.weight"])
    for change, message in (
        ({"mod1.conv1.weight": torch.zeros(64, 3, 7, 7)}, r"another shape \['conv1.weight \(64, 3, 7, 7\) instead of"),
        ({"mod8.block1.conv1.weight": torch.zeros(1)}, r"1 unexpected \['mod8.block1.conv1.weight'\]"),
    ):
        torch.save({**light, **change}, path)
        with pytest.raises(WeightsError, match=message):
            read_backbone_weights(path, "wider_resnet38_a2")
    del light["mod2.block1.bn1.0.bias"]
    torch.save(light, path)
    with pytest.raises(WeightsError, match=r"1 names missing \['layer2.0.norm1.bias'\]"):
        read_backbone_weights(path, "wider_resnet38_a2")


@pytest.mark.slow
def test_network_starts_from_the_imagenet_trunk(reference_dir, tmp_path):
    light = published.light(published.shapes(reference_dir, "wider_resnet38_a2_imagenet"))
    light = {k: v for k, v in light.items() if not k.endswith("num_batches_tracked")}
    net = GSCNN(11, "wider_resnet38_a2", backbone_weights=str(save(light, tmp_path / "trunk.pth")))
    encoder = net.backbone.encoder
    assert (encoder.layer7_0.norm3.bias == light["mod7.block1.convs.bn3.0.bias"]).all()
    assert all(len(p.unique()) == 1 for p in encoder.parameters())


def command(args, capsys):
    with pytest.raises(SystemExit) as stop:
        tools(args)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("gscnn import-release: error: ")
    assert len(message.splitlines()) == 1
    return message


def test_import_overwrites_nothing_and_leaves_nothing_behind(light, tmp_path, capsys):
    source, out = save(snapshot(light), tmp_path / "release.pth"), tmp_path / "gscnn.ckpt"
    out.write_text("precious")
    assert "gscnn.ckpt exists" in command(["import-release", str(source), "--out", str(out)], capsys)
    assert out.read_text() == "precious"
    assert "no folder" in command(["import-release", str(source), "--out", str(tmp_path / "a/b.ckpt")], capsys)
    save({"a": torch.zeros(1)}, source)
    arguments = ["import-release", str(source), "--out", str(out), "--overwrite", "true"]
    assert "does not fit Gated-SCNN with 19 classes" in command(arguments, capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gscnn.ckpt", "release.pth"]
    assert out.read_text() == "precious"


@pytest.mark.slow
def test_imported_checkpoint_is_one_of_ours(light, tmp_path, capsys, monkeypatch):
    from gscnn_lightning.cli import main

    monkeypatch.chdir(tmp_path)
    light = {**light, "gate3.weight": torch.full((1,), 0.75).expand(8, 8, 1, 1)}
    save(snapshot(light), tmp_path / "release.pth")
    tools(["import-release", "release.pth", "--out", "gscnn.ckpt"])
    assert "gscnn.ckpt is a checkpoint for gscnn-fit" in capsys.readouterr().out
    task = GSCNNTask.load_from_checkpoint("gscnn.ckpt", map_location="cpu")
    assert (task.network.shape_stream.gates[2].conv.weight == 0.75).all()
    assert task.hparams.loss_variant == task.hparams.image_gradient == "release"
    assert task.class_names[0] == "road"
    kept = set(task.hparams) - set(PREDICTION_SETTINGS) - set(MACHINE_SETTINGS)
    assert set(torch.load("gscnn.ckpt", weights_only=True)["hyper_parameters"]) == kept
    del task
    data = ["--data", "ScenesDataModule", "--data.size", "[64,128]", "--data.val_samples", "1"]
    plain = ["--data.num_workers", "0", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    main(["validate", "--ckpt_path", "gscnn.ckpt", *data, *plain])
    assert json.loads((tmp_path / "runs/default/version_0/scores_val.json").read_text())["means"]


# What the published intermediate results are called here.
PLACES = {
    "mod1": "backbone.encoder.conv1",
    **{f"mod{n}": f"backbone.encoder.layer{n}_{i}" for n, i in ((2, 2), (3, 2), (4, 5), (5, 2), (6, 0), (7, 0))},
    **{f"dsn{n}": f"shape_stream.gating.{i}" for i, n in enumerate((3, 4, 7))},
    **{f"res{n}": f"shape_stream.blocks.{n - 1}" for n in (1, 2, 3)},
    **{f"d{n}": f"shape_stream.reduce.{n - 1}" for n in (1, 2, 3)},
    **{f"gate{n}": f"shape_stream.gates.{n - 1}" for n in (1, 2, 3)},
    "fuse": "shape_stream.boundary",
    "cw": "boundary_fusion",
    "aspp": "aspp",
    "bot_aspp": "aspp_project",
    "bot_fine": "skip_project",
    "final_seg": "decoder",
}


@pytest.fixture(scope="module")
def filled(reference_dir, names, tmp_path_factory):
    """The published network with the stated weights, through a file such as the authors saved."""
    path = tmp_path_factory.mktemp("release") / "release.pth"
    save(snapshot({k: published.fill(k, s, 1002) for k, s in names.items()}), path, old_format=True)
    net = load_release_checkpoint(path)
    path.unlink()
    return net


@pytest.mark.slow
@pytest.mark.parametrize("photo", ["a", "b"])
def test_network_computes_the_published_numbers(photo, filled, reference):
    arrays = {k.removeprefix(f"{photo}/"): v for k, v in reference("network.npz").items() if k.startswith(photo)}
    image = torch.from_numpy(arrays["image_u8"]).permute(2, 0, 1)[None]
    normalised = (image / 255 - MEAN) / STD
    np.testing.assert_allclose(normalised, arrays["input"], atol=1e-6)
    seen = {}
    hooks = [
        filled.get_submodule(place).register_forward_hook(lambda m, i, y, n=name: seen.update({n: y}))
        for name, place in PLACES.items()
    ]
    with torch.no_grad():
        output = filled(image, torch.from_numpy(arrays["canny"]))
    for hook in hooks:
        hook.remove()
    np.testing.assert_allclose(output.seg_logits, arrays["seg_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.boundary_logits.sigmoid(), arrays["edge"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(seen["cw"].sigmoid(), arrays["acts"], rtol=0, atol=1e-5)
    used = {"image_u8", "input", "canny", "canny_input_u8", "seg_logits", "edge", "acts"}
    for name, x in seen.items():
        x = x[0] if isinstance(x, tuple) else x
        if isinstance(x, list):  # branches that the next layer joins, the mean of the image as one place
            x = torch.cat([branch.expand(*branch.shape[:2], *x[-1].shape[2:]) for branch in x], dim=1)
        assert x.shape == tuple(arrays[f"shape/{name}"]), name
        largest = float(x.abs().max())
        statistics = [float(x.double().mean()), float(x.double().std(correction=0)), largest]
        np.testing.assert_allclose(statistics, arrays[f"stat/{name}"], rtol=1e-4, atol=1e-5 * largest, err_msg=name)
        part = f"slice/{name}" if f"slice/{name}" in arrays else f"full/{name}"
        if part.startswith("slice"):
            x = x[:, :8, :6, :6]
        elif name.startswith(("gate", "cw")):
            x = x[:, :4, ::4, ::4]
        np.testing.assert_allclose(x, arrays[part], rtol=1e-4, atol=1e-5 * largest, err_msg=name)
        used |= {f"shape/{name}", f"stat/{name}", part}
    # What the network computes itself from the photograph is the same map.
    integers = normalised.to(torch.int32) & 255
    np.testing.assert_array_equal(integers[0].permute(1, 2, 0), arrays["canny_input_u8"])
    np.testing.assert_array_equal(cv2.Canny(arrays["canny_input_u8"], 10, 100), arrays["canny"][0, 0])
    np.testing.assert_array_equal(filled.image_gradient(image / 255), arrays["canny"])
    with torch.no_grad():
        torch.testing.assert_close(filled(image).seg_logits, output.seg_logits, rtol=0, atol=1e-6)
    assert {k for k in arrays if not k.startswith("rgbcanny")} == used


@pytest.mark.slow
def test_network_with_an_injected_gradient_computes_the_published_numbers(filled, reference):
    arrays = {k.removeprefix("a/"): v for k, v in reference("network.npz").items() if k.startswith("a/")}
    image, gradient = arrays["image_u8"], arrays["rgbcanny/canny"]
    np.testing.assert_array_equal(cv2.Canny(image, 10, 100), gradient[0, 0])
    attention = []
    hook = filled.boundary_fusion.register_forward_hook(lambda m, i, y: attention.append(y.sigmoid()))
    with torch.no_grad():
        output = filled(torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(gradient))
    hook.remove()
    np.testing.assert_allclose(output.seg_logits, arrays["rgbcanny/seg_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(attention[0], arrays["rgbcanny/acts"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.boundary_logits.sigmoid(), arrays["edge"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_odd_sized_batch_computes_the_published_numbers(filled, reference):
    arrays = reference("network_odd_batch2.npz")
    assert int(arrays["fill_seed"]) == 1002
    image = torch.from_numpy(arrays["input"]) * STD + MEAN
    with torch.no_grad():
        output = filled(image, torch.from_numpy(arrays["canny"]))
    np.testing.assert_allclose(output.seg_logits, arrays["seg_logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.boundary_logits.sigmoid(), arrays["edge"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_training_step_is_the_published_one(reference, reference_dir, names, tmp_path):
    a = {k: torch.as_tensor(v) for k, v in reference("train_step.npz").items()}
    seed = int(a["fill_seed"])
    path = save({k: published.fill(k, s, seed) for k, s in names.items()}, tmp_path / "release.pth")
    net = load_release_checkpoint(path).train()
    path.unlink()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    output = net(a["input"] * STD + MEAN, a["canny"])
    torch.testing.assert_close(output.seg_logits, a["seg_logits"], rtol=0, atol=3e-4)
    torch.testing.assert_close(output.boundary_logits.sigmoid(), a["edge"], rtol=0, atol=1e-5)
    noise = -torch.log(1e-10 - torch.log(a["gumbel_u"] + 1e-10))
    terms = GSCNNLoss(19, variant="release")(output, a["labels"], a["edge_target"], noise)
    own = {"total": "loss", "seg_loss": "segmentation", "edge_loss": "boundary"}
    own |= {"att_loss": "attention", "dual_loss": "regularizer"}
    for released, name in own.items():
        assert terms[name].item() == pytest.approx(a[released].item(), rel=1e-5), name
    stated = json.loads((reference_dir / "train_step_gradients.json").read_text())
    assert stated["fill_seed"] == seed
    for released, value in stated["losses"].items():
        assert value == pytest.approx(a[released].item(), rel=1e-6)
    terms["loss"].backward()
    parameters = {released_name(k): p for k, p in net.named_parameters()}
    buffers = {released_name(k): b for k, b in net.named_buffers() if not k.endswith((".mean", ".std"))}
    check_gradients(parameters, a, stated)
    after = {k.removeprefix("buffer_after/"): v for k, v in a.items() if k.startswith("buffer_after/")}
    assert len(after) == 10
    for key, value in after.items():
        torch.testing.assert_close(buffers[key], value, rtol=1e-4, atol=1e-5, msg=key)
    tracked = {int(b) for k, b in buffers.items() if k.endswith("num_batches_tracked")}
    assert tracked == {int(a["num_batches_tracked_after"])}


def check_gradients(parameters, arrays, stated):
    numbers = stated["grad_l2_norm_and_sum"]
    assert {key for key, value in numbers.items() if value is None} == {"dsn1.weight", "dsn1.bias"}
    assert set(numbers) - {"dsn1.weight", "dsn1.bias"} == set(parameters)
    for key, parameter in parameters.items():
        gradient = parameter.grad.double()
        if key.endswith("_gate_conv.3.bias") or (key.startswith("dsn") and key.endswith("bias")):
            continue  # zero up to rounding, in front of a batch normalisation
        norm, total = numbers[key]
        assert float(gradient.norm()) == pytest.approx(norm, rel=0.01), key
        assert float(gradient.sum()) == pytest.approx(total, abs=0.01 * norm * gradient.numel() ** 0.5), key
    full = {k.removeprefix("grad/"): v for k, v in arrays.items() if k.startswith("grad/")}
    assert len(full) == 13
    for key, gradient in full.items():
        tolerance = (0.02 if key.startswith(("mod1.", "mod2.")) else 2e-3) * float(gradient.abs().max())
        torch.testing.assert_close(parameters[key].grad, gradient, rtol=0, atol=tolerance, msg=key)
