"""Every command line of README and of the pages in docs/ does, on tiny data, what it is there for."""

import csv
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import yaml
from tests import published
from tests.data import made, made_formats
from tests.data.shards.stores import object_store
from tests.models.hub_server import COMMIT, hub_server
from tests.pages import DOCS, EXTRAS, PAGES, ROOT, SHELL, TARGETS, TYPED, blocks, calls, languages, lines, lines_of
from tests.test_several_nodes import batch_script, free_port
from tests.tiny import write_checkpoint, write_config
from torch.distributed.run import get_args_parser

from gscnn_lightning.classes import CAMVID, CITYSCAPES
from gscnn_lightning.cli import GSCNNCLI
from gscnn_lightning.cli import main as fit
from gscnn_lightning.commands.main import COMMANDS, _function
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data.scenes.draw import write_scenes
from gscnn_lightning.demo import runtime
from gscnn_lightning.fit_settings import _SettingsCLI
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.cost import meta_network
from gscnn_lightning.parsing import CommandParser
from gscnn_lightning.release import SETTINGS, released_name
from gscnn_lightning.shipped_configs import config_names

# What is asked for that the machine of a test has not, or that would only take long.
REPLACED = {
    "--trainer.devices 8": ("--trainer.devices 2", "GPUs: two processes over gloo"),
    "--trainer.num_nodes 2": ("--trainer.num_nodes 1", "machines: tests/test_several_nodes.py trains on two"),
    "--nnodes 2": ("--nnodes 1", "machines"),
    "--nproc-per-node 8": ("--nproc-per-node 2", "GPUs"),
    "--master-addr node0": ("--master-addr 127.0.0.1", "machines"),
    "--master-port 29500": (f"--master-port {free_port()}", "a port that others may have"),
    "/shared/cityscapes": ("cityscapes", "a folder of a cluster"),
    "/shared/runs": ("runs", "a folder of a cluster"),
    "postgresql://me@db.example.org/sweeps": (
        "sqlite:///sweeps.db",
        "a database: tests/studies/test_shared_study.py has one",
    ),
    "segments/sidewalk-semantic": ("sidewalk", "a hub: a data set saved to disk, read by the same library"),
    "--seeds 0,1,2": ("--seeds 0", "trainings"),
    "--runs 20": ("--runs 1", "trainings"),
    "--runs 50": ("--runs 1", "trainings"),
    "--train 500": ("--train 2", "pictures"),
    "--val 100": ("--val 1", "pictures"),
    "--block 10": ("--block 1", "frames: there are two"),
}

ON_CPU = "--trainer.accelerator cpu --trainer.precision 32-true"
ONE_EPOCH = "--trainer.max_epochs 1 --data.samples_per_epoch 2 --trainer.limit_val_batches 1 --data.num_workers 0"
ONE_EPOCH += f" --data.batch_size 2 --data.crop_size [64,64] {ON_CPU}"
ONE_STEP = ONE_EPOCH.replace("--data.samples_per_epoch 2", "--trainer.limit_train_batches 1")
SCENES = "--data.size [64,128] --data.train_samples 8 --data.val_samples 2"
# No hub is asked for weights, and gloo knows no synchronised normalisation.
SMALL = "--model.backbone test_resnet --model.pretrained false"
NO_GPU = f"{SMALL} --trainer.plugins []"
RUN = "runs/*/version_0"
TRAINED = f"{RUN}/checkpoints/last.ckpt {RUN}/checkpoints/best.ckpt {RUN}/scores_val.json {RUN}/learning_curves.png"


class Kind(NamedTuple):
    """Calls that begin with the same words, longer beginnings first.

    Attributes:
        more: what follows the words of the pages, so that it is small.
        files: patterns of what it leaves, of which each finds one or more; {out} is its --out.
        says: what it prints.
        code: how it ends.
        apart: in a process of its own.
        quick: a second or two, for `make test`.
    """

    more: str = ""
    files: str = ""
    says: tuple[str, ...] = ()
    code: int = 0
    apart: bool = False
    quick: bool = False


TABLE = ("ratio", "two-stream", "control")
KINDS = {
    "gscnn ablate": Kind(f"--rows control,dual_task {ONE_STEP}", "{out}/ablation.csv {out}/*_seed0/scores_val.json"),
    "gscnn ablate --config camvid --data.root CamVid --seeds 0,1,2 --equal time": Kind(
        f"--rows control,dual_task {ONE_EPOCH}", "{out}/ablation.csv {out}/times.json", ("ms a step",)
    ),
    "gscnn bench inference": Kind("--size [64,96] --repeats 1", says=TABLE),
    "gscnn bench loop": Kind(
        f"--batches 3 --repeats 1 {SCENES} --data.batch_size 2 --data.crop_size [64,64] --data.num_workers 0",
        says=("gscnn-fit", "bare loop", "the same"),
    ),
    "gscnn bench losses": Kind("--sides [64] --repeats 1", says=("ratio", "cross-entropy", "joint")),
    "gscnn bench predict": Kind(
        "--size [64,96] --pictures 1 --repeats 1",
        says=("best.ckpt, compiled", "model.onnx, openvino", "small.onnx, onnxruntime", "pictures per second"),
    ),
    "gscnn bench shards": Kind("--repeats 1 --workers [0]", says=("samples/s", "s3://bucket/shards")),
    "gscnn bench step": Kind("--size [2,64,64] --repeats 1", says=(*TABLE, "GFLOP/s")),
    "gscnn compare": Kind(files="{out}/comparison.json", says=("95 %",)),
    "gscnn cost": Kind(says=("shape stream", "GFLOP")),
    "gscnn data check": Kind(says=("no problems",), quick=True),
    "gscnn data pack": Kind(files="{out}/manifest.json {out}/train/chunk-0-0.bin", quick=True),
    "gscnn data preview": Kind(
        "--data.num_workers 0 --data.crop_size [64,64] --data.batch_size 2", "{out}", quick=True
    ),
    "gscnn data suspects": Kind(files="{out}/suspects.csv {out}/suspects.png"),
    "gscnn demo": Kind("--port 0 --runtime web", "{out}/index.html {out}/ort/LICENSE", ("until Ctrl-C", "stopped")),
    "gscnn export": Kind(files="{out}", says=("logits",)),
    "gscnn import-release": Kind(files="{out}", says=("is a checkpoint for gscnn-fit",)),
    "gscnn new": Kind(
        files="photos_config/classes.yaml", says=("gscnn-fit --config photos_config/photos.yaml",), quick=True
    ),
    "gscnn predict": Kind(files="{out}/predictions.json {out}/0_labels.png", quick=True),
    "gscnn predict RUN/checkpoints/best.ckpt cityscapes": Kind(
        files="{out}/berlin_000000_000019_ids.png", says=("543 of 544 frames of berlin are missing",), code=1
    ),
    "gscnn predict hf:": Kind(files="{out}/predictions.json {out}/0_labels.png", apart=True),
    "gscnn predict model.onnx": Kind(files="{out}/predictions.json {out}/0_labels.png"),
    "gscnn publish": Kind(files="{out}/model.safetensors {out}/config.json {out}/README.md"),
    "gscnn publish runs/camvid/version_0 --out gscnn-camvid --overwrite": Kind(
        files="committed/model.safetensors committed/config.json committed/README.md", says=(COMMIT,), apart=True
    ),
    "gscnn report": Kind(files="{out}", quick=True),
    "gscnn scenes": Kind(files="{out}/gtFine/val/*/*_labelIds.png", quick=True),
    "gscnn score": Kind(files="{out}/scores_test.json", says=("pixel accuracy",)),
    "gscnn sweep": Kind(
        f"--trainer.logger CSVLogger {SCENES} {ONE_STEP}", "runs/sweep_*/sweep.csv", ("val/miou", "best: ")
    ),
    "gscnn sweep --status": Kind(says=("study optimizer_2: 1 of 1 runs have begun: 1 complete",)),
    "gscnn-fit --config camvid": Kind(ONE_STEP, TRAINED),
    "gscnn-fit --config camvid --config network/paper": Kind(f"{ONE_STEP} --model.pretrained false", TRAINED),
    "gscnn-fit --config camvid --data.root CamVid --ckpt_path": Kind(
        f"{ONE_STEP} --trainer.max_epochs 2", TRAINED, ("epoch 2/2",)
    ),
    "gscnn-fit --config camvid --model.backbone_weights": Kind(f"{ONE_STEP} {SMALL}", TRAINED),
    "gscnn-fit --config cityscapes": Kind(f"{ONE_STEP} {NO_GPU}", TRAINED),
    "gscnn-fit --config cityscapes --data.root": Kind(f"{ONE_STEP} {NO_GPU}", TRAINED, apart=True),
    "gscnn-fit --config folder": Kind(ONE_STEP, TRAINED),
    "gscnn-fit --config photos_config/photos.yaml": Kind(ONE_STEP, TRAINED),
    "gscnn-fit --config photos_config/photos.yaml --find_lr": Kind(ONE_STEP, TRAINED, ("learning rate",)),
    "gscnn-fit --config scenes": Kind(ONE_STEP, TRAINED),
    "gscnn-fit --config shards": Kind(ONE_STEP, TRAINED),
    "gscnn-fit fit --help": Kind(says=("--model.backbone ", "--data ", "--trainer.max_epochs ")),
    "gscnn-fit test": Kind(files=f"{RUN}/scores_test.json"),
    "gscnn-fit validate": Kind(files=f"{RUN}/scores_val.json"),
    "torchrun": Kind(f"{ONE_STEP} {NO_GPU}", TRAINED, apart=True),
}


def kind_of(typed):
    """The longest beginning of a call that the table has."""
    return max((words for words in KINDS if " ".join(typed).startswith(words)), key=len, default=None)


def words_of(args):
    return next((tuple(args[:n]) for n in (2, 1) if tuple(args[:n]) in COMMANDS), None)


def marked(typed):
    quick = kind_of(typed) is not None and KINDS[kind_of(typed)].quick
    return pytest.param(typed, id=" ".join(typed), marks=[] if quick else [pytest.mark.slow])


def test_every_call_is_of_a_kind_and_there_is_one_of_every_kind():
    assert [typed for typed in TYPED if kind_of(typed) is None] == []
    assert {kind_of(typed) for typed in TYPED} == set(KINDS)
    assert len(TYPED) > 80
    unused = [words for words in REPLACED if not any(words in " ".join(typed) for typed in TYPED)]
    assert unused == []


# Other lines for a shell, and what has to be true of what a pattern finds in them.
OTHERS = {
    r"(#(?!!|SBATCH).*)?": lambda said: True,
    r"make ([a-z-]+)(?: +#.*)?": lambda target: target in TARGETS,
    r"pip install '(?:\.|gscnn-lightning)\[([\w,]+)\]'": lambda extras: set(extras.split(",")) <= EXTRAS,
    r"jupyter lab (\w+)": lambda folder: [*(ROOT / folder).glob("*.ipynb")],
    r"pytest -m slow (tests/\w+)": lambda tests: "pytest.mark.slow" in "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / tests).glob("test_*.py")
    ),
    # tests/studies/test_shared_study.py has a database with a password there
    r"export (PGPASSWORD)=\.\.\. +#.*": lambda name: True,
    # tests/test_several_nodes.py runs the script
    r"(.+)": lambda line: line in lines_of(batch_script()),
}  # fmt: skip


def is_known(line):
    return any((found := re.fullmatch(pattern, line)) and is_so(found[1]) for pattern, is_so in OTHERS.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_lines_for_a_shell_are_of_a_kind_that_is_checked(page):
    assert [line for line in lines(page) if not [*calls(line)] and not is_known(line)] == []
    # What is no command has a word behind its fence that says so, and is none.
    assert {name for name in languages(page) if not name.startswith("{")} <= {*SHELL, "python", "text", "yaml"}
    assert [line for text in blocks(page, "text") for line in lines_of(text) if [*calls(line)]] == []


@pytest.mark.parametrize(
    "line",
    ["make nothing", "pip install 'gscnn-lightning[nothing]'", "pip install nothing", "docker run x", "gscn fit"],
)
def test_lines_that_nothing_checks_are_seen(line):
    assert not is_known(line)


class _AnySubcommand(_SettingsCLI):
    subcommands = staticmethod(GSCNNCLI.subcommands)


@pytest.mark.parametrize("typed", TYPED, ids=" ".join)
def test_commands_are_parsed_by_their_own_parser(typed, tmp_path, monkeypatch, capsys):
    """As they stand, and within the fast part of the tests."""
    monkeypatch.chdir(tmp_path)
    program, *args = typed
    if program == "torchrun":
        given = get_args_parser().parse_args(args)
        assert (given.module, given.training_script) == (True, "gscnn_lightning")
        program, args = "gscnn-fit", given.training_script_args
    for before, word in zip(["", *args], args, strict=False):
        if before == "--config" and word.endswith((".yaml", ".yml")):  # a file of the reader's
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).write_text("data: {class_path: gscnn_lightning.data.ScenesDataModule}")
    if args[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            fit(args) if program == "gscnn-fit" else tools(args)
        assert stop.value.code == 0
        return
    if program == "gscnn":
        words = words_of(args)
        assert words is not None, f"{args[0]} is no command"
        command = CommandParser("gscnn", _function(words))
        unnamed, given, args = command.parse(args[len(words) :])
        if words == ("cost",):
            CommandParser("gscnn cost", meta_network).parse(args)
            return
        config = unnamed[0] if words == ("data", "pack") else given.get("config")
        if isinstance(config, str):  # an argument of the command, which hands it on
            args = ["--config", config, *args]
        if not args:
            return
        args = ["fit", *args]
    _AnySubcommand(args if args[0] in GSCNNCLI.subcommands() else ["fit", *args])
    assert "error" not in capsys.readouterr().err


def photo(seed, size=(64, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def labels(classes):
    return np.arange(64 * 96, dtype=np.uint16).reshape(64, 96).__floordiv__(64 * 96 // classes + 1).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which everything is that several commands name: tiny data, networks, label maps and runs."""
    root = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for first, split in enumerate(("train", "val")):
            for i in range(2):
                made.save(root / "CamVid" / split / f"f{i}.png", photo(2 * first + i))
                made.save(root / "CamVid" / f"{split}annot" / f"f{i}.png", labels(11))
                made.save(root / "PATH/images" / split / f"f{i}.png", photo(2 * first + i))
                made.save(root / "PATH/masks" / split / f"f{i}.png", labels(3))
                made.save(root / "masks" / f"f{i}.png", labels(11))
        (block,) = blocks(DOCS / "data.md", "yaml")
        (root / "PATH/classes.yaml").write_text(block)
        write_scenes(root / "cityscapes", 4, 2, size=(64, 128))
        made.save(root / "cityscapes/leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png", photo(0))
        for name in ("CITYSCAPES", "FILES"):
            (root / name).symlink_to(root / "cityscapes")
        for path in (root / "cityscapes/gtFine/val").rglob("*_labelIds.png"):
            for folder in ("results", "theirs"):
                made.save(root / folder / path.name, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        for i in range(2):
            made.save(root / "photos" / f"{i}.png", photo(i))
        for name in ("new", "unlabelled"):
            shutil.copytree(root / "photos", root / name)
        writer = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
        for i in range(2):
            writer.write(photo(i))
        writer.release()
        for seed, path in enumerate(("A/best.ckpt", "B/best.ckpt", "best.ckpt")):
            write_checkpoint(root / path, CAMVID, seed)
        for seed, path in enumerate(("A.ckpt", *(f"ours{i}/checkpoints/best.ckpt" for i in range(3)))):
            write_checkpoint(root / path, CITYSCAPES, seed)
        tiny = yaml.safe_load(write_config(root / "tiny.yaml", epochs=1).read_text())
        tiny["data"]["init_args"] |= {"size": [64, 96], "train_samples": 2, "val_samples": 2}
        (root / "tiny.yaml").write_text(yaml.safe_dump(tiny))
        tools(["data", "pack", "cityscapes", "--data.root", "cityscapes", "--out", "shards"])
        fit(["--config", "tiny.yaml"])
        for name in ("RUN", "OTHER_RUN", "CONTROL_RUN", "runs/camvid/version_0"):
            shutil.copytree("runs/tiny/version_0", name)
        shutil.copy(root / "photos/0.png", root / "street.jpg")
        tools(["publish", "best.ckpt", "--out", "gscnn-camvid", "--picture", "street.jpg"])
    return root


@pytest.fixture(scope="module")
def exported(place):
    """Files that are no checkpoints, under the names that they have in the pages."""
    pytest.importorskip("onnxscript")
    path = place / "exported/model.onnx"
    path.parent.mkdir()
    tools(["export", str(place / "best.ckpt"), "--out", str(path)])
    shutil.copy(path, path.with_name("small.onnx"))
    return path.parent


def own(name):
    """A folder of this call's own, in place of one that many use."""
    if Path(name).is_symlink():
        Path(name).unlink()
    return Path(name)


def roboflow(root):
    for split in ("train", "valid"):
        names = [f"{split}{i}_jpg.rf.jpg" for i in range(3)]
        for seed, name in enumerate(names):
            made_formats.write(root / split / name, made.picture(seed, made_formats.SIZE))
        (root / split / "_annotations.coco.json").write_text(json.dumps(made_formats.coco_content(names)))


def one_coco_file(root):
    names = [f"{i}.jpg" for i in range(6)]
    for seed, name in enumerate(names):
        made_formats.write(root / "images" / name, made.picture(seed, made_formats.SIZE))
    (root / "annotations").mkdir()
    (root / "annotations/instances_default.json").write_text(json.dumps(made_formats.coco_content(names)))


def with_photos(*_):
    root = own("photos")
    for i in range(8):
        made.save(root / "images" / f"{i}.png", photo(i))
        made.save(root / "masks" / f"{i}.png", labels(3))


def with_config(*_):
    with_photos()
    tools(["new", "photos"])


def with_cvat(*_):
    made_formats.cvat(Path("FOLDER"))
    Path("FOLDER/JPEGImages").rename("FOLDER/PHOTOS")


def with_data_set(*_):
    made_formats.hugging_face(Path("sidewalk"))
    Path("sidewalk/classes.yaml").rename("classes.yaml")


def with_release(*_):
    with torch.device("meta"):
        state = GSCNN(19, pretrained=False, **SETTINGS).state_dict()
    shapes = {released_name(k): v.shape for k, v in state.items() if k not in ("backbone.mean", "backbone.std")}
    shapes |= {"dsn1.weight": (1, 64, 1, 1), "dsn1.bias": (1,)}
    torch.save({"state_dict": published.light(shapes)}, "FILE")


def with_run(*_):
    fit(["--config", "camvid", "--data.root", "CamVid", *ONE_STEP.split()])
    Path("runs/camvid/version_0").rename(own("RUN"))


def with_study(*_):
    (started,) = {typed for typed in TYPED if kind_of(typed) == "gscnn sweep" and "--storage" in typed}
    tools([*replaced(started[1:]), *KINDS["gscnn sweep"].more.split()])


def with_web(*_):
    for name in runtime.PROCESSOR + runtime.GRAPHICS:
        Path("web").mkdir(exist_ok=True)
        (Path("web") / name).write_text(f"// {name}")


def with_store(_, stack):
    stack.enter_context(object_store())
    tools(["data", "pack", "cityscapes", "--data.root", "FILES", "--out", "s3://bucket/shards"])


def with_hub(place, stack):
    files = {path.name: path.read_bytes() for path in (place / "gscnn-camvid").iterdir()}
    address, committed, _ = stack.enter_context(hub_server(files))
    known = {"HF_ENDPOINT": address, "HF_HOME": "home", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_x"}
    stack.enter_context(mock.patch.dict(os.environ, known))
    Path("committed").mkdir()
    stack.callback(lambda: [Path("committed", name).write_bytes(content) for name, content in committed.items()])


def with_hub_to_push_to(place, stack):
    with_hub(place, stack)
    shutil.copytree(place / "gscnn-camvid", "gscnn-camvid")


# What single calls find, by a part of theirs, beside `place`.
MADE = {
    "data/coco --data.root PATH": lambda *_: made_formats.coco(own("PATH")),
    "{split}/_annotations.coco.json": lambda *_: roboflow(Path("FOLDER")),
    "annotations/instances_default.json": lambda *_: one_coco_file(Path("FOLDER")),
    "--config data/yolo": lambda *_: made_formats.yolo(Path("FOLDER")),
    "--config data/cvat": with_cvat,
    "--config data/hugging_face": with_data_set,
    "gscnn new photos": with_photos,
    "photos_config/photos.yaml": with_config,
    "gscnn import-release FILE": with_release,
    "--ckpt_path RUN/checkpoints/last.ckpt": with_run,
    "gscnn sweep --status": with_study,
    "gscnn demo": with_web,
    "s3://bucket/shards": with_store,
    "gscnn predict hf:": with_hub,
    "--push": with_hub_to_push_to,
}


def replaced(args):
    text = "\0".join(["", *args, ""])
    for words, (other, _) in REPLACED.items():
        text = text.replace("\0".join(["", *words.split(), ""]), "\0".join(["", *other.split(), ""]))
    return text.split("\0")[1:-1]


OF_FILES = ("--config", "--data.root", "--labels", "--ckpt_path", "--data.classes")


def absent(args):
    """Files and folders that a call reads and that are not here."""
    words = words_of(args)
    unnamed = [] if words in (None, ("cost",), ("sweep",)) else args[len(words) :]
    before = itertools.takewhile(lambda word: not word.startswith("--"), unnamed)
    named = [word for option, word in itertools.pairwise(args) if option in OF_FILES]
    paths = [word for word in [*before, *named] if word not in config_names() and not word.startswith("hf:")]
    inside = [*Path("PATH").glob("classes.yaml")] * ("PATH" in args)
    return [p for given in paths for p in given.split(",") if not Path(p).exists() and Path("PATH", p) not in inside]


PROGRAM = {"gscnn-fit": ["-m", "gscnn_lightning"], "torchrun": ["-m", "torch.distributed.run"]}
PROGRAM["gscnn"] = ["-c", "from gscnn_lightning.commands.main import main; main()"]


def serve(command):
    """Start what serves a page, ask for it, and stop it as a user would; exit code and output."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.match(r"(http://\S+) until", line):
                with urllib.request.urlopen(f"{found[1]}index.html") as page:
                    assert "<title>model</title>" in page.read().decode()
                process.send_signal(signal.SIGINT)
        return process.wait(60), "".join(said)


def carried_out(program, args, apart, capsys):
    """Exit code and output of a call."""
    command = [sys.executable, *PROGRAM[program], *args]
    if "--serve" in args:
        return serve(command)
    if apart:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        return done.returncode, done.stdout
    capsys.readouterr()
    code = 0
    try:
        fit(args) if program == "gscnn-fit" else tools(args)
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return code, said.out + said.err


def out_of(args):
    """What --out is, by default that of the command."""
    given = dict(itertools.pairwise(args))
    return given.get("--out") or inspect.signature(_function(words_of(args))).parameters["out"].default


def check_run(run, args):
    """A training has the settings that it was given, and what these are for."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for option, word in dict(itertools.pairwise(args)).items():
        group, _, name = option.removeprefix("--").partition(".")
        if group not in ("model", "data", "trainer") or "." in name or not option.startswith("--"):
            continue
        settings = {**config[group], **config[group].get("init_args", {}), "": config[group].get("class_path")}
        found = settings[name]
        found = found["class_path"] if name == "logger" else found
        assert str(found) == word or str(found).endswith(f".{word}") or found == yaml.safe_load(word), option
    said = json.loads((run / "environment.json").read_text())
    assert said["devices"] == (2 if "--trainer.devices" in args else 1)
    assert (run / "wandb").is_dir() == ("WandbLogger" in args)
    with (run / "metrics.csv").open() as file:
        assert int(next(csv.DictReader(file))["epoch"]) == ("--ckpt_path" in args)  # the second, where it goes on


@pytest.mark.parametrize("typed", [marked(typed) for typed in TYPED])
def test_commands_do_what_they_are_for(typed, place, request, tmp_path, monkeypatch, capsys):
    kind, text = KINDS[kind_of(typed)], " ".join(typed)
    program, *args = typed
    made = [path for path in place.iterdir() if path.name not in ("exported", "runs")]
    if ".onnx" in text and words_of(args) != ("export",):
        made += request.getfixturevalue("exported").iterdir()
    written = [word for option, word in itertools.pairwise(args) if option == "--out"]
    for path in made:
        if path.name not in written:
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for name in [path for path in args if path.startswith("runs/")]:
        shutil.copytree(place / name, name)
    for name, value in {"GSCNN_CAMVID_ROOT": "CamVid", "CITYSCAPES_DATASET": "cityscapes"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ExitStack() as stack:
        for part, make in MADE.items():
            if part in text:
                make(place, stack)
        args = replaced(args)
        assert absent(args) == []
        args += kind.more.split()
        code, said = carried_out(program, args, kind.apart, capsys)
    assert code == kind.code, said[-3000:]
    assert [words for words in kind.says if words not in said] == [], said[-3000:]
    for pattern in kind.files.split():
        pattern = pattern.format(out=out_of(args)) if "{out}" in pattern else pattern
        assert [*Path().glob(pattern)], f"no {pattern}: {said[-3000:]}"
    if kind.files == TRAINED:
        (run,) = Path().glob(RUN)
        check_run(run, args)
    if "--epochs" in args:
        assert yaml.safe_load(Path("photos_config/photos.yaml").read_text())["trainer"]["max_epochs"] == 20
