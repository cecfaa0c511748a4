"""The page in a real browser: what it shows is what the network says, and it asks nobody else."""

import base64
import json
import shutil
import threading
import time

import cv2
import numpy as np
import pytest
from tests.demo.made import COLORS, NAMES, write_network
from tests.tiny import write_checkpoint

from gscnn_lightning.classes import CAMVID
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data.scenes.draw import draw_scene
from gscnn_lightning.demo.runtime import copy_runtime
from gscnn_lightning.demo.serve import server
from gscnn_lightning.errors import SettingError

webdriver = pytest.importorskip("selenium.webdriver")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow  # a browser, and a runtime of 40 MB

SECONDS = 300


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    """The files of onnxruntime-web, fetched once into the cache of whoever tests."""
    folder = tmp_path_factory.mktemp("web")
    try:
        copy_runtime(folder)
    except SettingError as error:
        pytest.skip(str(error))
    return folder


class Page:
    """A page that is served, in a browser, until the test ends."""

    def __init__(self, driver, folder):
        self.driver, self.server = driver, server(folder, 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def open(self):
        self.driver.get(self.url)
        self.until("document.getElementById('ms').textContent !== '–'")

    def js(self, expression):
        return self.driver.execute_script(f"return {expression}")

    def until(self, expression):
        end = time.monotonic() + SECONDS
        while not self.js(expression):
            assert time.monotonic() < end, (expression, self.js("document.getElementById('alert').textContent"))
            time.sleep(0.1)

    def text(self, name):
        return self.js(f"document.getElementById('{name}').textContent")

    def click(self, selector):
        self.driver.find_element("css selector", selector).click()

    def labels(self, colors):
        """The label map as it is on the canvas, by the colours of its classes."""
        assert self.js("document.getElementById('layer').dataset.layer") == "labels"
        encoded = self.js("document.getElementById('layer').toDataURL('image/png').split(',')[1]")
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)
        found = np.full(shown.shape[:2], 255, np.uint8)
        for number, (red, green, blue) in enumerate(colors):
            found[(shown[..., :4] == (blue, green, red, 255)).all(-1)] = number
        return found

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def elsewhere(self):
        """Addresses that were asked and are not those of the page."""
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        assert urls
        return [url for url in urls if not url.startswith((self.url, f"blob:{self.url}"))]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None or shutil.which("chromedriver") is None:
        pytest.skip("there is no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.add_argument("--headless=new")
    options.add_argument("--no-sandbox")
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument("--window-size=1400,1000")
    options.add_argument("--use-fake-device-for-media-stream")
    options.add_argument("--use-fake-ui-for-media-stream")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    folder = tmp_path_factory.mktemp("downloads")
    made.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    made.downloads = folder
    yield made
    made.quit()


@pytest.fixture
def page(driver):
    """Serves folders one after the other."""
    pages = []

    def serve(folder):
        driver.get_log("browser")
        driver.get_log("performance")
        pages.append(Page(driver, folder))
        return pages[-1]

    yield serve
    driver.get("about:blank")
    for one in pages:
        one.server.shutdown()
        one.server.server_close()


def write_photo(path, size=(181, 243)):
    cv2.imwrite(str(path), draw_scene(3, size=(192, 256))[0][: size[0], : size[1], ::-1])
    return path


def share_of_different(a, b):
    assert a.shape == b.shape
    return float((a != b).mean())


def test_pictures_layers_keys_camera_and_download(page, driver, web, tmp_path):
    model = write_network(tmp_path / "model.onnx")
    photo = write_photo(tmp_path / "street.png")
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(web), "--picture", str(photo)])
    session = onnxruntime.InferenceSession(str(model))
    expected = session.run(["labels"], {"image": cv2.imread(str(photo))[None, ..., ::-1]})[0][0]
    one = page(tmp_path / "site")
    one.open()
    assert share_of_different(one.labels(COLORS), expected) == 0
    assert (one.text("size"), one.text("where")[:11]) == ("243 × 181", "WebAssembly")
    assert one.js("document.querySelectorAll('#classes b').length") == len(NAMES)
    shares = one.js("[...document.querySelectorAll('#classes b')].map((b) => b.textContent)")
    assert shares[0] == f"{100 * (expected == 0).mean():.1f} %"

    # The label map as a file: what `gscnn predict` would write.
    one.click("#save")
    end = time.monotonic() + 30
    while not (files := list(driver.downloads.glob("*_labels.png"))):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert np.array_equal(cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED), expected)

    # Layers, by mouse; one class alone.
    for layer, size in {"boundary": [243, 181], "gate_1": [121, 90], "labels": [243, 181]}.items():
        one.click(f"input[value={layer}]")
        found = one.js("[document.getElementById('layer').width, document.getElementById('layer').height]")
        assert (one.js("document.getElementById('layer').dataset.layer"), found) == (layer, size)
    number = int(np.bincount(expected.ravel(), minlength=3).argmax())
    one.click(f"#classes li:nth-child({number + 1}) button")
    alone = one.labels(COLORS)
    assert np.array_equal(alone == number, expected == number)
    assert set(np.unique(alone)) <= {number, 255}
    one.click(f"#classes li:nth-child({number + 1}) button")

    # The pointer, by keys alone.
    stage = driver.find_element("id", "stage")
    stage.send_keys(webdriver.Keys.ARROW_RIGHT)
    k = int(expected[int(0.5 * 181), int(0.51 * 243)])
    assert one.text("under").startswith(f"{NAMES[k]}, boundary ")
    assert one.js("document.getElementById('tip').hidden") is False

    # A file, by its dialogue; one that is none; one that is too small.
    other = write_photo(tmp_path / "other.jpg", (120, 200))
    driver.find_element("id", "file").send_keys(str(other))
    one.until("document.getElementById('size').textContent === '200 × 120'")
    expected = session.run(["labels"], {"image": cv2.imread(str(other))[None, ..., ::-1]})[0][0]
    assert share_of_different(one.labels(COLORS), expected) <= 0.01  # two decoders of JPEG, and no network that smooths
    (tmp_path / "text.png").write_text("no picture")
    driver.find_element("id", "file").send_keys(str(tmp_path / "text.png"))
    one.until("document.getElementById('alert').textContent.startsWith('text.png cannot be shown')")
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((8, 8, 3), np.uint8))
    driver.find_element("id", "file").send_keys(str(tmp_path / "dot.png"))
    one.until("document.getElementById('alert').textContent.includes('needs 32 on each side')")

    # Dropped and pasted.
    for event, part in {"drop": "dataTransfer", "paste": "clipboardData"}.items():
        driver.execute_script(
            """const [kind, part] = arguments;
            const canvas = Object.assign(document.createElement('canvas'), { width: kind.length * 20, height: 50 });
            canvas.getContext('2d');
            canvas.toBlob((blob) => {
              const data = new DataTransfer();
              data.items.add(new File([blob], 'it.png', { type: 'image/png' }));
              const Kind = kind === 'drop' ? DragEvent : ClipboardEvent;
              window.dispatchEvent(new Kind(kind, { [part]: data, bubbles: true, cancelable: true }));
            });""",
            event,
            part,
        )
        one.until(f"document.getElementById('size').textContent === '{len(event) * 20} × 50'")

    # The camera: one after the other, until it is stopped.
    one.click("#camera")
    one.until("document.getElementById('camera').getAttribute('aria-pressed') === 'true'")
    one.until("document.getElementById('size').textContent.startsWith('640')")
    one.click("#camera")
    one.until("document.getElementById('camera').getAttribute('aria-pressed') === 'false'")
    assert one.errors() == []
    assert one.elsewhere() == []


def test_on_a_phone_nothing_is_wider_than_the_screen(page, driver, web, tmp_path):
    model = write_network(tmp_path / "model.onnx", gates=False)
    tools(["demo", str(model), "--out", str(tmp_path / "site"), "--runtime", str(web), "--webgpu", "false"])
    one = page(tmp_path / "site")
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        one.open()
        assert one.js("document.documentElement.scrollWidth") <= 360
        small = one.js(
            "[...document.querySelectorAll('button, .button, select')]"
            ".filter((b) => b.offsetParent && b.offsetHeight < 36).length"
        )
        assert small == 0
        assert one.js("document.querySelector('input[value=gate_1]')") is None
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert one.errors() == []


def test_labels_in_the_page_are_those_of_predict(page, web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "best.ckpt", CAMVID, image_gradient="sobel")
    photo = write_photo(tmp_path / "street.png")
    tools(["export", "best.ckpt", "--out", "model.onnx"])
    tools(["predict", "best.ckpt", str(photo), "--out", "out", "--formats", "[labels]"])
    tools(["demo", "model.onnx", "--out", "site", "--runtime", str(web), "--picture", str(photo)])
    one = page(tmp_path / "site")
    one.open()
    expected = cv2.imread("out/street_labels.png", cv2.IMREAD_UNCHANGED)
    assert len(np.unique(expected)) > 1
    assert share_of_different(one.labels(CAMVID.colors), expected) <= 0.001
    assert one.errors() == []
    assert one.elsewhere() == []
