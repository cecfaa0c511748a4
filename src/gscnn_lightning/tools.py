"""The ``gscnn`` command: everything beside training, one function per tool."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli
from rich.console import Console

from gscnn_lightning.bench.data import data as bench_data
from gscnn_lightning.bench.metrics import metrics as bench_metrics
from gscnn_lightning.bench.tracking import tracking as bench_tracking
from gscnn_lightning.errors import GSCNNError


def scenes(out: Path, train: int = 200, val: int = 50, size: tuple[int, int] = (256, 512), seed: int = 0) -> None:
    """Write drawn street scenes in the official Cityscapes layout.

    The real data module reads them: gscnn-fit --config configs/cityscapes.yaml --data.root OUT

    Args:
        out: folder to create; it must be empty or not exist.
        train: number of training scenes.
        val: number of validation scenes.
        size: height and width in pixels; height at least 64, width one to three times the height.
        seed: another seed is another data set.
    """
    from gscnn_lightning.data.scenes import write_scenes

    write_scenes(out, train, val, seed, size)
    Console().print(f"{train} training and {val} validation scenes are in {out}", soft_wrap=True)


def import_release(file: Path, out: Path, num_classes: int | None = None, overwrite: bool = False) -> None:
    """Convert the published Gated-SCNN checkpoint into one of gscnn-fit.

    Then: gscnn-fit validate --ckpt_path OUT --data CityscapesDataModule --data.root cityscapes

    The ImageNet weights of WideResNet-38 need no conversion: gscnn-fit takes that file as --model.backbone_weights.

    Args:
        file: the published checkpoint; its name may stand alone, as in gscnn import-release FILE --out OUT.
        out: checkpoint to write.
        num_classes: if not the 19 of Cityscapes; the last layer then starts from random weights.
        overwrite: replace an existing file.
    """
    from gscnn_lightning.release import import_release

    import_release(file, out, num_classes, overwrite)
    Console().print(f"{out} is a checkpoint for gscnn-fit and GSCNNTask.load_from_checkpoint", soft_wrap=True)


def cost(
    backbone: str = "resnet50",
    size: tuple[int, int] = (1024, 2048),
    num_classes: int = 19,
    output_stride: Literal[8, 16, 32] = 8,
    shape_stream: bool = True,
    shape_channels: int = 64,
    channels: int = 256,
    skip_channels: int = 48,
) -> None:
    """Print parameters and GFLOPs of trunk, shape stream, ASPP and decoder.

    For example: gscnn cost --backbone wider_resnet38_a2 --size [800,800]

    Args:
        backbone: timm model name of the regular stream.
        size: height and width of the image in pixels.
        num_classes: number of classes.
        output_stride: stride of the last map, 8, 16 or 32.
        shape_stream: false for the matched control.
        shape_channels: width of the shape stream's first block.
        channels: width of the ASPP branches and of the decoder.
        skip_channels: width of the decoder's skip connection.
    """
    import torch

    from gscnn_lightning.models import GSCNN
    from gscnn_lightning.models.cost import cost_table, network_cost

    with torch.device("meta"):
        network = GSCNN(
            num_classes,
            backbone,
            pretrained=False,
            output_stride=output_stride,
            shape_stream=shape_stream,
            shape_channels=shape_channels,
            channels=channels,
            skip_channels=skip_channels,
        )
    strides = "/".join(map(str, network.backbone.strides))
    console = Console()
    table = cost_table(network_cost(network, size))
    console.print(f"{backbone}, strides {strides}, one image of {size[0]}x{size[1]} pixels", soft_wrap=True)
    console.print(table)


def _listed(summary: str) -> Callable[[], None]:
    """What the list of tools shows of a tool with a parser of its own."""

    def entry() -> None:
        raise NotImplementedError

    entry.__doc__ = summary
    return entry


# Tools that take the configs of gscnn-fit, or things without a name before them: `main` of a module parses those.
OWN_PARSERS = {
    ("predict",): ("gscnn_lightning.predict", "Predict images, folders and videos; make a Cityscapes submission."),
    ("compare",): ("gscnn_lightning.compare", "Score two checkpoints side by side, with confidence intervals."),
    ("report",): ("gscnn_lightning.report.command", "Write one HTML file about one or several runs."),
    ("ablate",): ("gscnn_lightning.ablate", "Train the rows of the paper's ablation, and compare them in one table."),
    ("sweep",): ("gscnn_lightning.sweep", "Run a W&B sweep file without any server."),
    ("data", "check"): ("gscnn_lightning.data_tools", "Read a whole data set and report what is wrong with it."),
    ("data", "preview"): ("gscnn_lightning.data_tools", "Draw training samples as the network gets them."),
}
_LISTED = {words[-1]: _listed(summary) for words, (_, summary) in OWN_PARSERS.items()}

TOOLS: dict[str, Any] = {
    "scenes": scenes,
    "predict": _LISTED["predict"],
    "compare": _LISTED["compare"],
    "report": _LISTED["report"],
    "ablate": _LISTED["ablate"],
    "sweep": _LISTED["sweep"],
    "cost": cost,
    "import-release": import_release,
    "data": {
        "_help": "Look at the data of a config before training on it.",
        "check": _LISTED["check"],
        "preview": _LISTED["preview"],
    },
    "bench": {
        "_help": "Measure speed, ratios in one run.",
        "data": bench_data,
        "metrics": bench_metrics,
        "tracking": bench_tracking,
    },
}


def main(args: list[str] | None = None) -> None:
    """Run ``gscnn`` with the arguments of the command line, or those given.

    Args:
        args: arguments as on the command line; `sys.argv` by default.
    """
    given = sys.argv[1:] if args is None else args
    try:
        for words, (module, _) in OWN_PARSERS.items():
            if tuple(given[: len(words)]) == words:
                importlib.import_module(module).main(given[1:])
                return
        if len(given) > 1 and callable(TOOLS.get(given[0])) and not given[1].startswith("-"):
            # A tool's first argument needs no name.
            given = [given[0], f"--{next(iter(inspect.signature(TOOLS[given[0]]).parameters))}", *given[1:]]
        auto_cli(TOOLS, args=given, prog="gscnn", description="Tools beside gscnn-fit.", as_positional=False)
    except GSCNNError as error:
        sys.stderr.write(f"gscnn: error: {error}\n")
        sys.exit(2)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        sys.stderr.write(f"gscnn: error: cannot write {error.filename} ({error.strerror}): give another --out\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("gscnn: interrupted\n")
        sys.exit(130)
