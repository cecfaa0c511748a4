"""Checkpoints that somebody has altered: what is in them names a program, or is not what the reader expects."""

import os
import sys

import torch

CODE = "import pathlib; pathlib.Path('ran').write_text('imported')\nfrom torch.optim import SGD\nclass Data: pass\n"


class Payload:
    """Runs a command when it is unpickled without care."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def plant(folder, monkeypatch):
    """A module with a side effect on the path; `nothing_ran` says whether it came to it."""
    (folder / "evil.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)


def nothing_ran(folder):
    return not (folder / "ran").exists() and "evil" not in sys.modules


def _put(*keys):
    """Set a value in nested parts of a checkpoint."""

    def change(content, value):
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def _hyper(name, value):
    return lambda c: _put("hyper_parameters", name)(c, value)


def _optimizer(class_path):
    return _hyper("optimizer", {"class_path": class_path, "init_args": {"lr": 0.1}})


def _weight(value):
    def change(content):
        content["state_dict"]["network.boundary_fusion.weight"] = value(
            content["state_dict"]["network.boundary_fusion.weight"]
        )

    return change


def _state(*keys, value):
    return lambda c: _put(*keys)(c, value)


def _in_itself(content):
    content["loops"]["more"] = content["loops"]


def _over_and_over(content):
    part = [0] * 10
    for _ in range(12):
        part = [part] * 10
    content["notes"] = part


def _deep(content):
    part: list = []
    for _ in range(5000):
        part = [part]
    content["notes"] = part


def _removes(content):
    for key, state in content["callbacks"].items():
        if key.startswith("ModelCheckpoint"):
            folder = state["dirpath"]
            state["best_k_models"] = {f"{folder}/../../precious": torch.tensor(0.0)}
            state["kth_best_model_path"] = f"{folder}/../../precious"


def _of_callback(name, key, value):
    def change(content):
        found = next(k for k in content["callbacks"] if k.startswith(name))
        content["callbacks"][found][key] = value

    return change


NETWORKS = {
    "payload in the file": (_state("notes", value=Payload()), "holds Python objects, "),
    "payload in a nested value": (_hyper("tau", [{"a": Payload()}]), "holds Python objects, "),
    "_instantiator": (_hyper("_instantiator", "os.system"), "'_instantiator' in its hyper_parameters"),
    "_class_path": (_hyper("_class_path", "evil.Data"), "'_class_path' in its hyper_parameters"),
    "class_path": (_hyper("class_path", "evil.Data"), "'class_path' in its hyper_parameters"),
    "unknown key": (_hyper("data", "evil.Data"), "'data' in its hyper_parameters is no setting"),
    "nested class_path": (
        _hyper("tau", {"class_path": "evil.Data"}),
        "hyper_parameters.tau.class_path names something",
    ),
    "Popen": (_optimizer("subprocess.Popen"), "'subprocess.Popen' as its optimizer"),
    "os.system": (_optimizer("os.system"), "'os.system' as its optimizer"),
    "exec": (_optimizer("builtins.exec"), "'builtins.exec' as its optimizer"),
    "LambdaLR": (_optimizer("torch.optim.lr_scheduler.LambdaLR"), "LambdaLR' as its optimizer"),
    "Optimizer": (_optimizer("torch.optim.Optimizer"), "Optimizer' as its optimizer"),
    "module of torch.optim": (_optimizer("torch.optim.sgd.sys.exit"), "as its optimizer"),
    "import with an effect": (_optimizer("evil.SGD"), "'evil.SGD' as its optimizer"),
    "optimizer no mapping": (_hyper("optimizer", "evil.SGD"), "optimizer in its hyper_parameters is 'evil.SGD', not"),
    "optimizer without class": (_hyper("optimizer", {"init_args": {}}), "None as its optimizer"),
    "optimizer with classes in it": (
        _hyper("optimizer", {"class_path": "torch.optim.SGD", "init_args": {"lr": {"class_path": "evil.SGD"}}}),
        "hyper_parameters.optimizer.init_args.lr.class_path names something",
    ),
    "backbone a dict": (_hyper("backbone", {"name": "resnet18"}), "backbone in its hyper_parameters is {'name'"),
    "backbone a list": (_hyper("backbone", ["resnet18"]), "backbone in its hyper_parameters is ['resnet18'], not str"),
    "backbone of a hub": (_hyper("backbone", "hf-hub:evil/net"), "'hf-hub:evil/net'"),
    "class_names no texts": (_hyper("class_names", [1, 2]), "class_names in its hyper_parameters is [1, 2], not"),
    "num_classes a text": (_hyper("num_classes", "19"), "num_classes in its hyper_parameters is '19', not int"),
    "num_classes huge": (_hyper("num_classes", 10**9), "num_classes in its hyper_parameters is 1000000000, more"),
    "channels huge": (_hyper("channels", 10**6), "channels in its hyper_parameters is 1000000, more"),
    "tensor as setting": (_hyper("tau", torch.ones(2)), "tau in its hyper_parameters is a tensor"),
    "sparse": (
        _weight(lambda t: t.to_sparse()),
        "state_dict.network.boundary_fusion.weight is a tensor that is sparse",
    ),
    "meta": (_weight(lambda t: t.to("meta")), "is a tensor that is without numbers (meta)"),
    "quantized": (_weight(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)), "checkpoint bad.ckpt"),
    "huge by strides": (_weight(lambda t: torch.ones(1).expand(10**10)), "is a tensor that is larger than"),
    "no tensor": (_weight(lambda t: [1.0, 2.0]), "is [1.0, 2.0], no tensor"),
    "state_dict a list": (_state("state_dict", value=[]), "no state_dict"),
    "epoch a text": (_state("epoch", value="os.system"), "epoch is 'os.system', not int"),
    "W&B id a path": (_state("wandb_run_id", value="../../home"), "wandb_run_id is '../../home'"),
    "values over and over": (_over_and_over, "in itself over and over"),
    "nested deeply": (_deep, "checkpoint bad.ckpt"),
}
"""Changes that every reader of checkpoints refuses, with words of the message."""

_GROUP = ("optimizer_states", 0, "param_groups", 0)
TRAININGS = {
    "within itself": (_in_itself, "in itself over and over"),
    "loops a text": (_state("loops", value="os.system"), "loops is 'os.system'"),
    "loop with a class": (
        _state("loops", "fit_loop", "x", value={"class_path": "evil.Data"}),
        "loops.fit_loop.x.class_path",
    ),
    "counts texts": (_state("loops", "fit_loop", "epoch_progress", "total", "ready", value="1"), "no counts"),
    "counts a method": (_state("loops", "fit_loop", "epoch_progress", "total", "reset", value=1), "counts 'reset'"),
    "progress a number": (_state("loops", "fit_loop", "epoch_progress", value=3), "epoch_progress is 3"),
    "callbacks a list": (_state("callbacks", value=["evil.Data"]), "callbacks is ['evil.Data']"),
    "callback with a class": (
        _state("callbacks", "RunSummary", value={"class_path": "evil.Data"}),
        "callbacks.RunSummary.class_path names something",
    ),
    "scores texts": (_of_callback("RunRecord", "best", {"means": "x", "classes": {}}), "callbacks.RunRecord is"),
    "sums texts": (_of_callback("RunSummary", "images", "x"), "callbacks.RunSummary is"),
    "removes a file": (_removes, "precious', which is not in its folder"),
    "schedulers a mapping": (_state("lr_schedulers", value={"a": 1}), "lr_schedulers is {'a': 1}"),
    "scheduler overwrites": (_state("lr_schedulers", 0, "get_lr", value=1), "lr_schedulers[0].get_lr is no state"),
    "scheduler texts": (_state("lr_schedulers", 0, "base_lrs", value="x"), "lr_schedulers[0].base_lrs is 'x'"),
    "optimizer a text": (_state("optimizer_states", value="os.system"), "optimizer_states is no list"),
    "optimizer's rate a text": (_state(*_GROUP, "lr", value="x"), "param_groups[0].lr is 'x'"),
    "optimizer's betas": (_state(*_GROUP, "betas", value=0), "param_groups[0].betas is 0"),
    "optimizer's moments": (
        _state("optimizer_states", 0, "state", 0, "exp_avg", value=torch.ones(3)),
        "exp_avg has not the shape of its parameter",
    ),
    "random states texts": (_state("random_states", value=["x"]), "random_states are no states"),
    "random states beyond": (_state("random_states", 0, "numpy", 2, value=10**9), "random_states are no states"),
    "random states python": (_state("random_states", 0, "python", 1, value=[1]), "random_states are no states"),
    "steps a text": (_state("global_step", value="x"), "global_step is 'x', not int"),
    "version a text": (_state("pytorch-lightning_version", value="x"), "cannot be gone on from (InvalidVersion"),
}
"""Changes that no training goes on from, with words of the message."""


def write(path, whole, change):
    """A checkpoint with a change."""
    content = torch.load(whole, weights_only=True)
    change(content)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # as whoever has nested it so deeply
    try:
        torch.save(content, path)
    finally:
        sys.setrecursionlimit(limit)
