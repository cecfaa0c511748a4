"""`gscnn demo` up to the browser: the folder, what is in it, the runtime, the server."""

import json
import re
import tarfile
import threading
import urllib.request
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from tests.demo.made import COLORS, NAMES, write_network

from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.demo import runtime
from gscnn_lightning.demo.serve import server

pytest.importorskip("onnxruntime")

PAGE = {
    "_headers",
    "app.js",
    "example.png",
    "file.js",
    "icon.svg",
    "index.html",
    "model.json",
    "model.onnx",
    "style.css",
    "worker.js",
}


@pytest.fixture
def web(tmp_path):
    """A folder with files that are called as those of onnxruntime-web."""
    folder = tmp_path / "web/dist"
    folder.mkdir(parents=True)
    for name in runtime.PROCESSOR + runtime.GRAPHICS:
        (folder / name).write_text(f"// {name}")
    return folder.parent


@pytest.fixture
def model(tmp_path):
    return write_network(tmp_path / "model.onnx")


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        tools(["demo", *map(str, args)])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("gscnn demo: error: ")
    assert message.count("\n") == 1
    return message


def test_the_folder_has_all_that_the_page_needs(model, web, tmp_path, capsys):
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "street.png"), photo)
    args = ["--runtime", str(web), "--picture", str(tmp_path / "street.png"), "--title", "Roads & <b>skies</b>"]
    tools(["demo", str(model), "--out", str(tmp_path / "site"), *args])
    site = tmp_path / "site"
    assert {path.name for path in site.iterdir() if path.is_file()} == PAGE
    assert {path.name for path in (site / "ort").iterdir()} == {*runtime.PROCESSOR, *runtime.GRAPHICS, "LICENSE"}
    assert np.array_equal(cv2.imread(str(site / "example.png")), photo)
    about = json.loads((site / "model.json").read_text(encoding="utf-8"))
    assert about["classes"] == [{"name": n, "color": list(c)} for n, c in zip(NAMES, COLORS, strict=True)]
    assert (about["input"], about["size"], about["boundary"]) == ("image", None, True)
    assert about["outputs"] == ["labels", "boundary_prob", *about["gates"]]
    assert about["gates"] == ["gate_1", "gate_2", "gate_3"]
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "<title>Roads &amp; &lt;b&gt;skies&lt;/b&gt;</title>" in page
    assert "17 files" in capsys.readouterr().out


def test_what_the_network_takes_is_read_from_its_file(web, tmp_path):
    model = write_network(tmp_path / "model.onnx", size=(96, 128), gates=False)
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(web), "--webgpu", "false"])
    about = json.loads((tmp_path / "site/model.json").read_text(encoding="utf-8"))
    assert (about["size"], about["gates"], about["webgpu"]) == ([96, 128], [], False)
    assert not (tmp_path / "site/ort/ort.webgpu.min.mjs").exists()


def test_the_page_asks_no_other_address(model, web, tmp_path):
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(web)])
    for name in PAGE - {"model.onnx", "example.png"}:
        text = (tmp_path / "site" / name).read_text(encoding="utf-8")
        found = [url for url in re.findall(r"\b(?:https?:)?//[\w.-]+\.\w+", text) if "www.w3.org" not in url]
        assert found == [], name
    page = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    allowed = {"'self'", "'none'", "'wasm-unsafe-eval'", "blob:"}
    assert all(set(sources.split()) <= allowed for sources in rules.values())


def test_every_control_has_a_name(model, web, tmp_path):
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(web)])
    page = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    labelled, controls, ids = set(), [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            attrs = dict(attrs)
            ids.extend([attrs["id"]] if "id" in attrs else [])
            if tag == "label":
                labelled.add(attrs.get("for"))
            if tag in ("input", "select"):
                controls.append(attrs["id"])
            if tag == "img":
                assert "alt" in attrs

    Reader().feed(page)
    assert set(controls) <= labelled
    assert len(ids) == len(set(ids))
    script = (tmp_path / "site/app.js").read_text(encoding="utf-8")
    assert set(re.findall(r'\$\("(\w+)"\)', script)) <= set(ids)


def test_what_cannot_be_a_page_is_refused_in_one_line(model, web, tmp_path, capsys):
    out = ["--out", tmp_path / "site", "--runtime", web]
    assert "best.ckpt is no ONNX file: gscnn export" in refused(capsys, "best.ckpt", *out)
    assert "no.onnx does not exist" in refused(capsys, tmp_path / "no.onnx", *out)
    (tmp_path / "text.onnx").write_text("text")
    assert "text.onnx" in refused(capsys, tmp_path / "text.onnx", *out)
    unnamed = write_network(tmp_path / "unnamed.onnx", names=None)
    assert "was not made by gscnn export" in refused(capsys, unnamed, *out)
    assert "photo.png: No such file" in refused(capsys, model, *out, "--picture", tmp_path / "photo.png")
    assert not (tmp_path / "site/index.html").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    assert "is not empty, and no page" in refused(capsys, model, "--out", tmp_path / "full", "--runtime", web)
    tools(["demo", str(model), "--out", str(tmp_path / "made"), "--runtime", str(web)])
    assert "has a page already" in refused(capsys, model, "--out", tmp_path / "made", "--runtime", web)
    tools(["demo", str(model), "--out", str(tmp_path / "made"), "--runtime", str(web), "--overwrite", "true"])


def test_a_package_of_npm_is_taken_and_nothing_else_in_it(model, web, tmp_path, capsys):
    (tmp_path / "evil").write_text("evil")
    with tarfile.open(tmp_path / "web.tgz", "w:gz") as archive:
        archive.add(tmp_path / "evil", "../../evil.txt")
        archive.add(tmp_path / "evil", "package/dist/other.js")
        for path in (web / "dist").iterdir():
            archive.add(path, f"package/dist/{path.name}")
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(tmp_path / "web.tgz")])
    assert (tmp_path / "site/ort/ort.wasm.min.mjs").read_text() == "// ort.wasm.min.mjs"
    assert not list(tmp_path.rglob("evil.txt"))
    assert not list(tmp_path.rglob("other.js"))
    (web / "dist/ort.webgpu.min.mjs").unlink()
    message = refused(capsys, model, "--out", tmp_path / "b", "--runtime", web)
    assert "lacks ort.webgpu.min.mjs" in message
    assert "--webgpu false" in message
    (tmp_path / "broken.tgz").write_text("x")
    assert "cannot be unpacked" in refused(capsys, model, "--out", tmp_path / "b", "--runtime", tmp_path / "broken.tgz")


def test_the_runtime_is_fetched_once_by_npm_and_has_to_be_the_published_one(model, web, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "there is no npm" in refused(capsys, model, "--out", tmp_path / "a")
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    npm.chmod(0o755)
    assert "npm cannot fetch onnxruntime-web 1.30.0 (npm error network)" in refused(
        capsys, model, "--out", tmp_path / "a"
    )
    with tarfile.open(tmp_path / "web.tgz", "w:gz") as archive:
        archive.add(web / "dist", "package/dist")
    npm.write_text(
        f"#!/bin/sh\n/bin/cp {tmp_path / 'web.tgz'} onnxruntime-web.tgz\necho called >> {tmp_path / 'calls'}\n"
    )
    assert "is not what was published under this name" in refused(capsys, model, "--out", tmp_path / "a")
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha512((tmp_path / "web.tgz").read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "_SHA512", digest)
    for name in ("b", "c"):
        tools(["demo", str(model), "--out", str(tmp_path / name)])
    assert (tmp_path / "calls").read_text() == "called\n" * 2  # once refused, once taken


def test_the_server_lets_threads_share_memory(tmp_path, capsys, model, web):
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(web)])
    with server(tmp_path / "site", 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        port = running.server_address[1]
        for name, kind in {
            "": "text/html",
            "ort/ort.wasm.min.mjs": "text/javascript",
            "model.json": "application/json",
        }.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}") as answer:
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
                assert answer.headers["Content-Type"].startswith(kind)
        args = ["--overwrite", "true", "--runtime", web, "--serve", "true", "--port", port]
        assert f"--port {port} cannot be used" in refused(capsys, model, "--out", tmp_path / "site", *args)
        running.shutdown()
