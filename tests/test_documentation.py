"""README and the pages in docs/: Python there runs, links lead somewhere, what is named is there, the site is built.

Command lines are tried in tests/test_documented_commands.py.
"""

import ast
import re
import shutil
import subprocess
import sys

import pytest
from tests.pages import DOCS, EXTRAS, PAGES, ROOT, TARGETS, blocks

from gscnn_lightning.cli import _known_settings
from gscnn_lightning.commands.main import COMMANDS
from gscnn_lightning.fit_settings import _SettingsCLI

LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def test_commands_and_settings_in_the_text_are_known():
    """Those that stand in a sentence, in backticks."""
    groups = {words[0] for words in COMMANDS}
    known = _known_settings(_SettingsCLI(["fit", "--config", "scenes"])._parser("fit"))
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for span in re.findall(r"`([^`\n]+)`", text):
            if found := re.match(r"gscnn ([a-z-]+)", span):
                assert found[1] in groups, f"{page.name}: {span}"
            for setting in re.findall(r"--((?:model|data|trainer|checkpoint)\.[a-z_.]*[a-z])(?![\w.*])", span):
                assert setting in known, f"{page.name}: --{setting}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_extras_are_there(page):
    """Those in the text; lines for a shell are tried in tests/test_documented_commands.py."""
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= TARGETS
    assert re.findall(r"pip install [\w.-]+\[", text) == []  # shells take brackets for patterns
    for extras in re.findall(r"pip install '[\w.-]+\[([\w,-]+)\]'", text):
        assert set(extras.split(",")) <= EXTRAS


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
