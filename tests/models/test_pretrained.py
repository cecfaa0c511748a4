"""Networks as folders and on a hub: saved, loaded, refused, and what is asked of ``huggingface_hub``."""

import json
import os
import subprocess
import sys
from unittest import mock

import pytest
import torch
from tests.models.hub_server import COMMIT, hub_server
from tests.tiny import SETTINGS

from gscnn_lightning import hub_files
from gscnn_lightning.errors import SettingError, WeightsError
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.folding import folded
from gscnn_lightning.models.pretrained import upload

hub = pytest.importorskip("huggingface_hub")
safetensors = pytest.importorskip("safetensors.torch")

NETWORK = {key: value for key, value in SETTINGS.items() if key != "boundary_tolerances"}
NAMES = ["road", "тротуар | <b>", "sky"]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = GSCNN(3, **NETWORK).train()
    made(torch.rand(2, 3, 64, 64))  # statistics that are not those of the beginning
    return made.eval()


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "net"
    network.save_pretrained(folder, class_names=NAMES)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the folder that a test may damage."""
    for name in (hub_files.CONFIG, hub_files.WEIGHTS):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def change(folder, **changes):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key, value in changes.items():
        part, _, rest = key.partition("__")
        (config[part] if rest else config)[rest or part] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


PROGRAM = """
import sys, torch
from gscnn_lightning import GSCNN
image, found = torch.load("image.pt"), []
for name in ("net", "hf:somebody/net"):
    network = GSCNN.from_pretrained(name)
    output = network(image)
    found.append([output.seg_logits, output.boundary_logits, network.class_names])
torch.save(found, "found.pt")
print(network.push_to_hub("somebody/net", token="hf_x", private=True))
"""


def test_a_fresh_process_gets_the_same_logits_from_a_folder_and_from_a_hub(network, saved):
    """And uploads the very same files; the hub is one on this machine, asked by the library's own code."""
    image = torch.randint(0, 256, (1, 3, 45, 61), dtype=torch.uint8)
    folder = saved.parent
    torch.save(image, folder / "image.pt")
    files = {name: (saved / name).read_bytes() for name in ("config.json", "model.safetensors", "README.md")}
    files["pytorch_model.bin"] = b"never asked for"
    with hub_server(files) as (address, committed, asked):
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
        program = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(program, check=True, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    with torch.no_grad():
        output = network(image)
    for logits, boundaries, names in torch.load(folder / "found.pt"):
        assert torch.equal(logits, output.seg_logits)
        assert torch.equal(boundaries, output.boundary_logits)
        assert list(names) == NAMES
    assert not any("pytorch_model.bin" in path or "/README.md" in path for path in asked)
    assert sorted(committed) == ["README.md", "config.json", "model.safetensors"]
    for name in ("config.json", "model.safetensors"):
        assert committed[name] == files[name]
    assert done.stdout.strip() == f"{address}/somebody/net/commit/{COMMIT}"


def test_the_config_says_all_that_the_network_was_made_with(network, saved):
    config = hub_files.read_hub_config(saved)
    assert config["network"] == {**network.arguments, "pretrained": False, "backbone_weights": None}
    assert config["class_names"] == NAMES
    assert len(config["class_colors"]) == 3
    assert config["normalization"]["mean"] == network.backbone.mean.flatten().tolist()


def test_signatures_are_those_of_the_mixin_of_the_library():
    """So that who knows the one knows the other."""
    import inspect

    for name in ("save_pretrained", "from_pretrained", "push_to_hub"):
        own = inspect.signature(getattr(GSCNN, name)).parameters
        theirs = inspect.signature(getattr(hub.PyTorchModelHubMixin, name)).parameters
        left_out = {
            "config",
            "model_card_kwargs",
            "model_kwargs",
            "allow_patterns",
            "ignore_patterns",
            "delete_patterns",
        }
        assert [n for n in theirs if n not in own and n not in left_out] == []


def test_arguments_replace_those_of_the_config(saved):
    assert GSCNN.from_pretrained(saved, freeze_norm=True).arguments["freeze_norm"] is True


def test_a_folded_network_is_not_saved(network, tmp_path):
    with pytest.raises(SettingError, match="is folded or was changed"):
        folded(network).save_pretrained(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_channels_last_weights_are_saved(network, tmp_path):
    torch.manual_seed(3)
    other = GSCNN(3, **NETWORK).to(memory_format=torch.channels_last)
    other.load_state_dict(network.state_dict())
    other.save_pretrained(tmp_path / "net")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            GSCNN.from_pretrained(tmp_path / "net").state_dict().values(), network.state_dict().values(), strict=True
        )
    )


ALTERED = {
    "unknown key": ({"auto_map": {"AutoModel": "evil.Net"}}, "'auto_map', which is no part of it"),
    "other network": ({"architecture": "Bert"}, "another kind of network ('Bert')"),
    "later format": ({"format": 2}, "has format 2, this version knows 1"),
    "unknown argument": ({"network__class_path": "os.system"}, "'class_path' in its hyper_parameters is no setting"),
    "nested argument": ({"network__backbone": {"class_path": "os.system"}}, "no number or text"),
    "wrong type": ({"network__channels": "16"}, "channels in its hyper_parameters is '16', not int"),
    "huge": ({"network__channels": 10**9}, "more than its weights have"),
    "other backbone": ({"network__backbone": "resnet18"}, "does not fit its config"),
    "no backbone": ({"network__backbone": "../x"}, "which timm does not have"),
    "names": ({"class_names": ["a"]}, "1 class names for 3 classes"),
    "colours": ({"class_colors": [[0, 0, 999]] * 3}, "whole numbers 0 to 255"),
    "normalisation": ({"normalization": {"mean": [0.0] * 3, "std": [1.0] * 3}}, "of different networks"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_what_is_no_config_of_this_library_is_refused_in_one_line(copy, case):
    changes, said = ALTERED[case]
    change(copy, **changes)
    with pytest.raises(WeightsError) as error:
        GSCNN.from_pretrained(copy)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{", "config.json cannot be read (JSONDecodeError)"),
        ("config.json", b"[" * 100_000, "config.json cannot be read (RecursionError)"),
        ("config.json", b" " * 1_000_001, "has 1000001 bytes"),
        ("model.safetensors", b"PK\x03\x04 a pickle", "model.safetensors cannot be read"),
        ("model.safetensors", b"", "model.safetensors cannot be read"),
    ],
)
def test_damaged_files_are_named(copy, name, content, said):
    (copy / name).write_bytes(content)
    with pytest.raises(WeightsError) as error:
        GSCNN.from_pretrained(copy)
    assert said in str(error.value)


def test_tensors_have_to_be_those_of_the_network(copy, network):
    state = network.state_dict()
    state["extra"] = torch.zeros(1)
    del state["boundary_fusion.weight"]
    safetensors.save_file(state, str(copy / "model.safetensors"))
    with pytest.raises(WeightsError, match=r"1 names missing \['boundary_fusion.weight'\], 1 unexpected \['extra'\]"):
        GSCNN.from_pretrained(copy)


def test_an_upload_makes_a_repository_and_one_commit(network, monkeypatch):
    """The calls are held against the signatures of the library that is installed."""
    api = mock.create_autospec(hub.HfApi, instance=True)
    api.create_repo.return_value = mock.Mock(repo_id="somebody/net")
    seen = {}

    def upload_folder(**arguments):
        seen.update(arguments, files=sorted(path.name for path in arguments["folder_path"].iterdir()))
        return mock.Mock(commit_url="https://hub/commit/1")

    api.upload_folder.side_effect = upload_folder
    made = mock.create_autospec(hub.HfApi, return_value=api)
    monkeypatch.setattr(hub, "HfApi", made)
    url = network.push_to_hub("somebody/net", private=True, token="hf_x", branch="dev", class_names=NAMES)
    assert url == "https://hub/commit/1"
    made.assert_called_once_with(token="hf_x")
    api.create_repo.assert_called_once_with(repo_id="somebody/net", private=True, exist_ok=True)
    assert seen["files"] == ["README.md", "config.json", "model.safetensors"]
    assert (seen["repo_id"], seen["revision"], seen["repo_type"]) == ("somebody/net", "dev", "model")


def test_a_name_on_the_hub_is_fetched_once_and_only_the_two_files(saved, monkeypatch):
    fetch = mock.create_autospec(hub.snapshot_download, return_value=str(saved))
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    hub_files._fetched.cache_clear()
    GSCNN.from_pretrained("somebody/net")
    GSCNN.from_pretrained("hf:somebody/net")
    GSCNN.from_pretrained("somebody/net", revision="v1", local_files_only=True)
    hub_files._fetched.cache_clear()
    assert [call.kwargs["revision"] for call in fetch.call_args_list] == [None, "v1"]
    assert fetch.call_args.kwargs["allow_patterns"] == ["config.json", "model.safetensors"]


def test_without_network_one_line_says_so(saved, monkeypatch, tmp_path):
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"cannot be uploaded to a/b \(no network: \w+; try again with network\)"):
        upload(saved, "a/b", token="hf_x")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"hf:a/b cannot be fetched \(no network, and it is not in the cache"):
        hub_files.model_folder("hf:a/b", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["a/b/c", "../x", "a b/c", "", "a/", "a--b/c"])
def test_names_that_no_repository_has_are_refused_before_anything_is_asked(saved, name):
    with pytest.raises(SettingError, match="is no name on the hub: write OWNER/NAME"):
        upload(saved, name)


def test_without_the_extra_everything_else_works(network, saved, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("safetensors", "huggingface_hub")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("safetensors", "safetensors.torch", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (
        lambda: network.save_pretrained(saved),
        lambda: GSCNN.from_pretrained(saved),
        lambda: upload(saved, "a/b"),
    ):
        with pytest.raises(SettingError, match=r"is not installed: pip install 'gscnn-lightning\[hub\]'"):
            call()
