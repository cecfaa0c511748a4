"""README and the pages in docs/: commands that are typed there work, Python runs, links lead somewhere, it builds."""

import ast
import configparser
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tests.data import made
from tests.tiny import write_checkpoint, write_config

from gscnn_lightning.classes import CAMVID, CITYSCAPES
from gscnn_lightning.cli import GSCNNCLI, _known_settings
from gscnn_lightning.cli import main as fit
from gscnn_lightning.commands.main import COMMANDS, _function
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data.scenes.draw import write_scenes
from gscnn_lightning.fit_settings import _SettingsCLI
from gscnn_lightning.models.cost import meta_network
from gscnn_lightning.parsing import CommandParser
from gscnn_lightning.shipped_configs import config_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PROGRAMS = ("gscnn", "gscnn-fit")


def blocks(page, *languages):
    """Code blocks of a page, by the word behind the fence."""
    found = re.findall(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for language, text in found if language in languages]


def lines(page):
    """Lines of the blocks for a shell, without what says what they do."""
    for text in blocks(page, "", "sh", "bash", "shell", "console"):
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            yield line.strip().removeprefix("$ ")


def calls(line):
    """Calls of our programs in a line, as the program and its arguments; what they print is none."""
    line = re.sub(r"^torchrun .* -m gscnn_lightning ", "gscnn-fit ", line)
    if not re.match(r"(\w+=\S* )*((srun|nohup|time)\b.* )?(gscnn|gscnn-fit) (--)?[\w./-]+( |$)", line):
        return
    parts = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
    parts.whitespace_split, parts.commenters = True, "#"
    words = []
    for word in [*parts, ";"]:
        if word[:1] in "|;&>":
            for program in PROGRAMS:
                if program in words:
                    yield program, words[words.index(program) + 1 :]
            words = []
        else:
            words.append(word)


TYPED = sorted({(program, *args) for page in PAGES for line in lines(page) for program, args in calls(line)})
each_call = pytest.mark.parametrize("typed", TYPED, ids=" ".join)


class _AnySubcommand(_SettingsCLI):
    subcommands = staticmethod(GSCNNCLI.subcommands)


def words_of(args):
    return next((tuple(args[:n]) for n in (2, 1) if tuple(args[:n]) in COMMANDS), None)


def test_there_are_commands_to_try():
    assert len(TYPED) > 40
    assert {words_of(args) for program, *args in TYPED if program == "gscnn"} >= {("predict",), ("data", "check")}


@each_call
def test_commands_are_parsed_by_their_own_parser(typed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program, *args = typed
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


def test_commands_and_settings_in_the_text_are_known():
    """Those that stand in a sentence, in backticks."""
    groups = {words[0] for words in COMMANDS}
    cli = _AnySubcommand(["fit", "--config", "scenes"])
    known = _known_settings(cli._parser("fit"))
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for span in re.findall(r"`([^`\n]+)`", text):
            if found := re.match(r"gscnn ([a-z-]+)", span):
                assert found[1] in groups, f"{page.name}: {span}"
            for setting in re.findall(r"--((?:model|data|trainer|checkpoint)\.[a-z_.]*[a-z])(?![\w.*])", span):
                assert setting in known, f"{page.name}: --{setting}"


def photo(seed, size=(64, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which everything is that the commands name: tiny data, networks, label maps and runs."""
    root = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for split in ("train", "val"):
            for i in range(2):
                made.save(root / "CamVid" / split / f"f{i}.png", photo(i))
                made.save(root / "CamVid" / f"{split}annot" / f"f{i}.png", labels(11))
                made.save(root / "PATH/images" / split / f"f{i}.png", photo(i))
                made.save(root / "PATH/masks" / split / f"f{i}.png", labels(3))
                made.save(root / "masks" / f"f{i}.png", labels(11))
        (block,) = blocks(DOCS / "data.md", "yaml")
        (root / "PATH/classes.yaml").write_text(block)
        write_scenes(root / "cityscapes", 1, 2, size=(64, 128))
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
        tools(["data", "pack", "tiny.yaml", "--out", "shards"])
        fit(["--config", "tiny.yaml", "--trainer.logger.save_dir", str(root / "made")])
        (made_run,) = (root / "made").rglob("version_0")
        for name in ("RUN", "OTHER_RUN", "CONTROL_RUN"):
            shutil.copytree(made_run, root / name)
        shutil.copytree(made_run, root / "runs/camvid/version_0")
        shutil.copy(root / "photos/0.png", root / "street.jpg")
        tools(["publish", "best.ckpt", "--out", "gscnn-camvid", "--picture", "street.jpg"])
    return root


@pytest.fixture(scope="module")
def exported(place):
    """A file that is not a checkpoint's, under the names that it has in the pages."""
    pytest.importorskip("onnxscript")
    path = place / "exported/model.onnx"
    path.parent.mkdir()
    tools(["export", str(place / "best.ckpt"), "--out", str(path)])
    shutil.copy(path, path.with_name("small.onnx"))
    return path.parent


def labels(classes):
    return np.arange(64 * 96, dtype=np.uint16).reshape(64, 96).__floordiv__(64 * 96 // classes + 1).astype(np.uint8)


OF_FILES = ("--config", "--data.root", "--labels", "--ckpt_path")


def absent(args):
    """Files and folders that a command reads and that are not here."""
    words = words_of(args) or args[:1]
    before = itertools.takewhile(
        lambda word: not word.startswith("--"), [] if words == ("cost",) else args[len(words) :]
    )
    named = [word for option, word in itertools.pairwise(args) if option in OF_FILES]
    paths = [word for word in [*before, *named] if word not in config_names()]
    return [path for given in paths for path in given.split(",") if not Path(path).exists()]


QUICK = {("data", word) for word in ("check", "preview", "suspects")}
QUICK |= {(word,) for word in ("predict", "score", "report", "compare", "cost", "scenes", "export", "publish")}
FEWER = {"500": "2", "100": "1", "10": "1"}
"""What the commands ask for that tiny data have not, or that would take long."""

QUICKEST = {("data", "check"), ("data", "preview"), ("predict",), ("report",), ("scenes",)}
"""Those that run in `make test`; the others in `make test-slow`."""


def is_quick(typed):
    program, *args = typed
    if program == "gscnn":
        # 1,525 frames, or a hub
        far = any(word in ("--cityscapes-submission", "--push") or word.startswith("hf:") for word in args)
        return words_of(args) in QUICK and not far
    return args[0] in ("validate", "test")


def has_export(args):
    return any(word.endswith(".onnx") for word in args)


def marked(typed):
    program, *args = typed
    quickest = program == "gscnn" and words_of(args) in QUICKEST and not has_export(args)
    return pytest.param(typed, id=" ".join(typed), marks=[] if quickest else [pytest.mark.slow])


@pytest.mark.parametrize("typed", [marked(typed) for typed in TYPED if is_quick(typed)])
def test_commands_that_take_seconds_run(typed, place, request, tmp_path, monkeypatch):
    program, *args = typed
    made = [path for path in place.iterdir() if path.name != "exported"]
    if has_export(args) and words_of(args) != ("export",):
        made += request.getfixturevalue("exported").iterdir()
    written = [word for option, word in itertools.pairwise(args) if option == "--out"]
    for path in made:
        if path.name in written:
            continue
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSCNN_CAMVID_ROOT", "CamVid")
    monkeypatch.setenv("CITYSCAPES_DATASET", "cityscapes")
    args = [FEWER.get(word, word) if args[0] in ("scenes", "compare") else word for word in args]
    if absent(args):
        pytest.skip(f"made nowhere here: {', '.join(absent(args))}")
    if program == "gscnn-fit":
        fit(args)
        return
    if words_of(args) == ("data", "preview"):
        args += ["--data.num_workers", "0", "--data.crop_size", "[64,64]", "--data.batch_size", "2"]
    try:
        tools(args)
    except SystemExit as stop:  # 1: it went through, and pictures of noise are not right in something
        if (stop.code, words_of(args)) != (1, ("data", "check")):
            raise


ONE_STEP = "--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.limit_val_batches 1 --data.num_workers 0"
ONE_STEP += " --data.batch_size 2 --data.crop_size [64,64] --trainer.accelerator cpu --trainer.precision 32-true"


def is_small_training(typed):
    """Trainings on data that `place` has, of a network that a processor trains; formats have tests of their own."""
    program, *args = typed
    given = [word for option, word in itertools.pairwise(args) if option == "--config"]
    own = all(name in config_names() and not name.startswith(("data/", "cityscapes")) for name in given)
    others = ("--help", "--trainer.devices", "--ckpt_path")
    return program == "gscnn-fit" and args[0].startswith("--") and own and not any(word in args for word in others)


@pytest.mark.slow
@pytest.mark.parametrize("typed", [typed for typed in TYPED if is_small_training(typed)], ids=" ".join)
def test_trainings_begin(typed, place, tmp_path, monkeypatch):
    _, *args = typed
    for path in place.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSCNN_CAMVID_ROOT", "CamVid")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not absent(args)
    if "resnet50" in args:  # no hub is asked for its weights
        args += ["--model.pretrained", "false"]
    if "gscnn-camvid" in args:  # which is a tiny network here
        args += ["--model.backbone", "test_resnet"]
    fit([*args, *ONE_STEP.split()])
    assert [*tmp_path.glob("runs/*/version_0/checkpoints/last.ckpt")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_extras_are_there(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    text = page.read_text(encoding="utf-8")
    assert {line.split()[1] for line in lines(page) if line.startswith("make ")} <= targets
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= targets
    for extras in re.findall(r"pip install '[\w.-]+\[([\w,-]+)\]'", text):
        assert set(extras.split(",")) <= set(setup["options.extras_require"])


CODE = [(page, text) for page in PAGES for text in blocks(page, "python")]
NEEDS = ("trainer.fit(", "best.ckpt", "model.onnx", "from_pretrained", "push_to_hub", "PATH")


@pytest.mark.parametrize(("page", "code"), CODE, ids=[f"{page.stem}-{i}" for i, (page, _) in enumerate(CODE)])
def test_python_blocks_run(page, code):
    """All of a block, or what it imports where it trains or needs a file."""
    tree = ast.parse(code, filename=str(page))
    if any(word in code for word in NEEDS):
        tree.body = [part for part in tree.body if isinstance(part, ast.Import | ast.ImportFrom)]
    exec(compile(tree, str(page), "exec"), {})


def anchors(page):
    """Names of the headings of a page, as forges and the site make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_tables_of_readme_are_those_of_the_result_files():
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        from measured import RESULTS, read, text_of
    finally:
        sys.path.pop(0)
    files = {path.name: read(path.name) for path in RESULTS.glob("*.json")}
    known = {tuple(text_of(cell) for cell in row) for table in files.values() for row in table["rows"]}
    measured = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Measured")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in measured.splitlines() if line.startswith("| ")]
    headings = {tuple(table["columns"]) for table in files.values()}
    assert len(rows) > 10
    for row in map(tuple, rows):
        assert row in known | headings, row
    shown = (DOCS / "results.md").read_text(encoding="utf-8")
    assert set(re.findall(r"```\{measured\} (\S+)", shown)) == set(files)


def build(source, out):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-E",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        out / "trees",
        source,
        out / "site",
    ]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_site_is_built_without_a_warning_and_asks_no_other_server(tmp_path):
    pytest.importorskip("sphinx")
    result = build(DOCS, tmp_path)
    assert result.returncode == 0, result.stderr
    site = tmp_path / "site"
    for name in ("index", "start", "method", "results", "commands", "api/losses", "notebooks/01_quickstart"):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"(https?://[^\"]+)", page)
        assert loaded == [], name
    assert (site / "method.html").read_text(encoding="utf-8").count('display="block"') >= 15


@pytest.mark.slow
def test_what_leads_nowhere_fails_the_build(tmp_path):
    pytest.importorskip("sphinx")
    wrong = {
        "missing.md": "[a](missing.md)",
        "nowhere": "[a](index.md#nowhere)",
        "nothing.py": "[a](../nothing.py)",
        "losses.nothing": "{py:func}`gscnn_lightning.losses.nothing`",
        "missing.png": "![a](missing.png)",
        "missing.json": "```{measured} missing.json\n```",
        "unknown": "$$\n\\unknown\n$$",
    }
    source = tmp_path / "docs"
    shutil.copytree(DOCS / "_ext", source / "_ext")
    shutil.copytree(DOCS / "_static", source / "_static")
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text("\n\n".join(["# Title", *wrong.values()]))
    result = build(source, tmp_path)
    assert result.returncode != 0
    for words in wrong:
        assert any(words in line for line in result.stderr.splitlines() if "WARNING" in line or "ERROR" in line), words


def test_every_page_of_the_list_is_written_or_expected():
    """A page that is not in a table of contents fails the build; one that is listed and gone is seen here."""
    expected = {"own_data", "data_formats", "class_imbalance", "backbones", "export", "scaling", "shards"}
    (listed,) = blocks(DOCS / "index.md", "{guides}")
    names = {line for line in listed.splitlines() if line and not line.startswith(":")}
    assert {name for name in names if not (DOCS / f"{name}.md").exists()} <= expected
