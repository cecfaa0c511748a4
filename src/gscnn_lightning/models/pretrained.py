"""Networks as folders and on a model hub: ``save_pretrained``, ``from_pretrained``, ``push_to_hub``.

The methods are those of the mixin of ``huggingface_hub``, whose package is asked for only when one is called. What
differs: nothing is unpickled, weights have to fit to the last name, and a config is checked before anything is built.
"""

import inspect
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_type_hints

import timm
import torch
from torch import Tensor

from gscnn_lightning.classes import ClassTable, colors_of
from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.hub_files import (
    CARD,
    CONFIG,
    HUB,
    WEIGHTS,
    checked_normalization,
    hub_config,
    hub_reason,
    model_folder,
    needed,
    read_hub_config,
    read_tensors,
    write_model,
)
from gscnn_lightning.models.weights import check_fit
from gscnn_lightning.plain import altered, fits, kind_text, shown

_SIZES = ("num_classes", "channels", "skip_channels", "shape_channels")

_CARD = """---
library_name: gscnn-lightning
pipeline_tag: image-segmentation
tags: [semantic-segmentation, gated-scnn]
---

# {title}

{classes} classes, backbone `{backbone}`. `gscnn publish` writes a card with scores, data and a picture.

```python
from gscnn_lightning import GSCNN

network = GSCNN.from_pretrained("OWNER/NAME")
labels = network(image).labels  # (B, H, W) of RGB images (B, 3, H, W), uint8 or float in [0, 1]
```
"""


class PretrainedMixin:
    """Saving to a folder or a hub and loading from there, for a network with ``arguments`` and tensors.

    Attributes:
        class_names: names of the classes of a network that was loaded; None if it does not know them.
        class_colors: their RGB colours, 0 to 255.
    """

    class_names: tuple[str, ...] | None = None
    class_colors: tuple[tuple[int, int, int], ...] | None = None

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[tuple[int, int, int]] | None = None,
        ignore_index: int = 255,
        boundary_tolerances: Sequence[float] | None = None,
        card: str | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,  # noqa: ANN401
    ) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and, unless there is one, a model card ``README.md``.

        Args:
            save_directory: folder; it is made.
            class_names: K names; those that the network was loaded with by default.
            class_colors: K RGB colours, 0 to 255; by default as for `GSCNNTask`.
            ignore_index: label of void pixels.
            boundary_tolerances: what the boundary F-score is measured at.
            card: text of the model card.
            repo_id: name on the hub, for `push_to_hub`; that of the folder by default.
            push_to_hub: upload it, too.
            **push_to_hub_kwargs: as for `push_to_hub`.

        Returns:
            Address of the commit if it was uploaded.

        Raises:
            SettingError: the network is folded or was changed by hand, names or colours are not one per class, or the
                extra "hub" is not installed.
        """
        arguments: dict[str, Any] = self.arguments  # type: ignore[attr-defined]
        state: dict[str, Tensor] = self.state_dict()  # type: ignore[attr-defined]
        self._check_whole(state)
        names = list(class_names or self.class_names or ()) or None
        colors = list(class_colors or self.class_colors or (colors_of(names) if names else ())) or None
        _check_classes(names, colors, arguments["num_classes"])
        plain = [(int(r), int(g), int(b)) for r, g, b in colors] if colors else None
        tolerances = None if boundary_tolerances is None else list(map(float, boundary_tolerances))
        normalization = {part: state[f"backbone.{part}"].flatten().tolist() for part in ("mean", "std")}
        folder = Path(save_directory)
        write_model(folder, hub_config(arguments, normalization, names, plain, ignore_index, tolerances), state)
        readme = folder / CARD
        if card is not None or not readme.exists():
            text = _CARD.format(title="Gated-SCNN", classes=arguments["num_classes"], backbone=arguments["backbone"])
            readme.write_text(text if card is None else card, encoding="utf-8")
        return upload(folder, repo_id or folder.name, **push_to_hub_kwargs) if push_to_hub else None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str = "cpu",
        **arguments: Any,  # noqa: ANN401
    ) -> Self:
        """The network of a folder or of the hub, in evaluation mode. What is there is data: nothing of it is run.

        Args:
            pretrained_model_name_or_path: a folder, or ``OWNER/NAME``, with or without ``hf:`` in front.
            force_download: fetch it anew.
            token: for networks that are not public.
            cache_dir: where to keep what is fetched.
            local_files_only: do not ask the network.
            revision: branch, tag or commit.
            map_location: device of the network.
            **arguments: of the network, in place of those of its config, such as ``grad_checkpointing=True``.

        Returns:
            The network, with `class_names` and `class_colors`.

        Raises:
            WeightsError: it is not there, cannot be fetched, is damaged, or is not as this library writes it.
            SettingError: an argument is out of range, or the extra "hub" is not installed.
        """
        name = str(pretrained_model_name_or_path)
        if not name.startswith(HUB) and not Path(name).is_dir():
            name = f"{HUB}{name}"
        folder = model_folder(name, revision, force_download, token, cache_dir, local_files_only)
        config, tensors = read_hub_config(folder, name), read_tensors(folder, name, map_location)
        checked_normalization(config, tensors, name)
        hints = get_type_hints(cls.__init__)
        known = {
            key: parameter.replace(annotation=hints.get(key, Any))
            for key, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]
        }
        check_saved_settings(config["network"], name, known, tensors)
        names, colors = config["class_names"], config["class_colors"]
        try:
            _check_classes(names, colors, config["network"].get("num_classes"))
            network = cls(**{**config["network"], "pretrained": False, "backbone_weights": None, **arguments})
        except (GSCNNError, TypeError, ValueError) as error:
            if arguments:
                raise
            raise WeightsError(f"{name} cannot be used: {' '.join(str(error).split())}") from error
        own: dict[str, Tensor] = network.state_dict()  # type: ignore[attr-defined]
        check_fit(tensors, own, folder / WEIGHTS, "its config")
        network.load_state_dict(tensors)  # type: ignore[attr-defined]
        network.class_names = None if names is None else tuple(names)
        network.class_colors = None if colors is None else tuple((r, g, b) for r, g, b in colors)
        return network.to(map_location).eval()  # type: ignore[attr-defined]

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model using gscnn-lightning.",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        **saved: Any,  # noqa: ANN401
    ) -> str:
        """Upload the network to the hub, where a repository is made if there is none.

        Args:
            repo_id: ``OWNER/NAME``.
            commit_message: of the commit.
            private: whether a repository that is made is private.
            token: by default that of ``hf auth login`` or HF_TOKEN.
            branch: to commit to, which has to exist; "main" by default.
            create_pr: make it a pull request.
            **saved: as for `save_pretrained`, such as ``class_names`` and ``card``.

        Returns:
            Address of the commit.

        Raises:
            SettingError: as in `save_pretrained`.
            WeightsError: the hub does not take it, or there is no network.
        """
        with tempfile.TemporaryDirectory() as made:
            self.save_pretrained(made, **saved)
            return upload(Path(made), repo_id, commit_message, private, token, branch, create_pr)

    def _check_whole(self, state: Mapping[str, Tensor]) -> None:
        """Raise unless the tensors are those of a network of these arguments, so that it can be loaded again."""
        arguments = {**self.arguments, "pretrained": False, "backbone_weights": None}  # type: ignore[attr-defined]
        with torch.device("meta"):
            like = type(self)(**arguments)
        own: dict[str, Tensor] = like.state_dict()  # type: ignore[attr-defined]
        different = [name for name in {**own, **state} if (name in own) != (name in state)]
        different += [name for name in own if name in state and own[name].shape != state[name].shape]
        if different:
            raise SettingError(
                f"the network is folded or was changed after it was made ({different[0]}), and could not be loaded "
                "again: save it as it was trained (load_task with fold=False)"
            )


def upload(
    folder: Path,
    repo_id: str,
    commit_message: str = "Push model using gscnn-lightning.",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Upload a folder to the hub in one commit; arguments as for `PretrainedMixin.push_to_hub`.

    Returns:
        Address of the commit.

    Raises:
        SettingError: the name is none, or the extra "hub" is not installed.
        WeightsError: the hub does not take it, or there is no network.
    """
    hub = needed("huggingface_hub")
    repo_id = repo_id.removeprefix(HUB)
    check_repo_name(repo_id)
    # Nothing but what a folder of a network has, whatever else lies there.
    allowed = [CONFIG, WEIGHTS, CARD, "*.jpg", "*.png"]
    try:
        api = hub.HfApi(token=token)
        made = api.create_repo(repo_id=repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            repo_type="model",
            folder_path=folder,
            allow_patterns=allowed,
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    except Exception as error:
        raise WeightsError(f"{folder} cannot be uploaded to {repo_id} ({hub_reason(error)})") from error
    return str(getattr(commit, "commit_url", commit))


def check_repo_name(repo_id: str) -> None:
    """Raise unless a name can be one of a repository on the hub, OWNER/NAME, or NAME of one's own.

    Raises:
        SettingError: it cannot.
    """
    parts = repo_id.split("/")
    usual = all(re.fullmatch(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?", part) for part in parts)
    if len(parts) > 2 or not usual or "--" in repo_id or ".." in repo_id:
        raise SettingError(
            f"{repo_id!r} is no name on the hub: write OWNER/NAME, with letters, digits, '-', '_' and '.'"
        )


def check_saved_settings(
    saved: Mapping[str, Any], name: str, parameters: Mapping[str, inspect.Parameter], state: Mapping[str, Any]
) -> None:
    """Raise unless settings out of a file are arguments of their types, not larger than the weights beside them.

    Args:
        saved: settings by name.
        name: what the file is called.
        parameters: those that there are, with their types.
        state: tensors of the file.

    Raises:
        WeightsError: one is unknown, of another type or too large, or timm does not have the backbone.
    """
    for key, value in saved.items():
        if key not in parameters:
            raise altered(name, f"{shown(key)} in its hyper_parameters is no setting of the model")
        if not fits(value, parameters[key].annotation):
            kind = kind_text(parameters[key].annotation)
            raise altered(name, f"{key} in its hyper_parameters is {shown(value)}, not {kind}")
    largest = max((max(tensor.shape, default=1) for tensor in state.values()), default=0)
    for key in _SIZES:
        if largest and saved.get(key, 0) > largest:
            raise altered(name, f"{key} in its hyper_parameters is {saved[key]}, more than its weights have")
    if "backbone" in saved and not timm.is_model(saved["backbone"]):
        raise altered(name, f"backbone in its hyper_parameters is {shown(saved['backbone'])}, which timm does not have")


def _check_classes(
    names: Sequence[str] | None, colors: Sequence[tuple[int, int, int]] | None, num_classes: int | None
) -> None:
    """Raise unless names and colours are one per class.

    Raises:
        SettingError: they are not.
    """
    for what, given in (("names", names), ("colours", colors)):
        if given is not None and len(given) != num_classes:
            raise SettingError(f"{len(given)} class {what} for {num_classes} classes: give one per class")
    if names is not None:
        try:
            ClassTable(tuple(names), tuple(colors or colors_of(names)))
        except ValueError as error:
            raise SettingError(str(error)) from error
