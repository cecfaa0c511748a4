"""``gscnn export``."""

from collections.abc import Sequence
from pathlib import Path

_MOST_PICTURES = 64


def export(
    checkpoint: str,
    /,
    out: Path = Path("model.onnx"),
    size: tuple[int, int] | None = None,
    gates: bool = False,
    int8: bool = False,
    calibrate: Sequence[str] | str = (),
    overwrite: bool = False,
) -> None:
    """Write the network of a checkpoint as a file for other programs, and compare it with the checkpoint first.

    OUT.onnx is for ONNX Runtime, OpenVINO, TensorRT and browsers, OUT.pt2 (torch.export) for torch. Either takes
    "image", pictures as they are read, (B, H, W, 3) bytes of RGB, in any number and of any size from 32 pixels a side,
    and gives "labels" (B, H, W) bytes, "seg_logits" (B, K, H, W) and, from a network with shape stream, "boundary_prob"
    (B, 1, H, W). Normalisation and image gradient are inside, classes and colours in the metadata. The file
    gets its name once it says what the checkpoint says at five sizes: logits within 0.001, labels equal on 99.99 % of
    the pixels.

    gscnn predict, gscnn score, gscnn compare, gscnn data suspects and gscnn bench predict take such files in place of
    a checkpoint; gscnn demo makes a page of OUT.onnx.

    Examples:
      gscnn export best.ckpt --out model.onnx
      gscnn export best.ckpt --out model.onnx --gates true --size [512,1024]
      gscnn export best.ckpt --out small.onnx --int8 true --calibrate photos/
      gscnn export best.ckpt --out small.onnx --int8 true --calibrate [day/,night/,'drive/*.png']
      gscnn export best.ckpt --out model.pt2

    Args:
        checkpoint: best.ckpt or last.ckpt of a run.
        out: file to write, .onnx or .pt2.
        size: height and width of the pictures, if they are fixed: for runtimes that want them so, and for networks that
            cannot be exported otherwise.
        gates: give the attention maps of the shape stream, too, "gate_1" to "gate_3" (B, 1, h, w).
        int8: let convolutions compute in 8 bits, but for the early ones, the last and those of the shape stream and of
            the steered upsampling. Says on how many pixels of the calibration pictures the labels are still those of
            the checkpoint, 90 % at least.
        calibrate: pictures and folders of pictures, such as the network is for, to measure the ranges of --int8 on;
            of more than 64, 64 that are spread evenly over them.
        overwrite: replace an existing file.

    Raises:
        GSCNNError: the network cannot be exported, or the file would say something else than the checkpoint.
    """
    from gscnn_lightning.checkpoint import load_task
    from gscnn_lightning.data.pictures import read_picture
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.exporting.making import export_network
    from gscnn_lightning.exporting.runtimes import SUFFIXES, is_exported, needed
    from gscnn_lightning.inference import SMALLEST
    from gscnn_lightning.prediction.inputs import find_inputs
    from gscnn_lightning.prediction.note import MadeFiles
    from gscnn_lightning.prediction.predictor import spread_indices
    from gscnn_lightning.terminal import say

    if not is_exported(out):
        raise SettingError(f"out is {out}: give a file that ends in {' or '.join(SUFFIXES)}")
    if is_exported(checkpoint):
        raise SettingError(f"{checkpoint} is an exported network already: give best.ckpt or last.ckpt of a run")
    if out.exists() and not overwrite:
        raise SettingError(f"{out} is there already: choose another --out, or replace it with --overwrite true")
    if size is not None and min(size) < SMALLEST:
        raise SettingError(f"size is {list(size)}: give height and width in pixels, {SMALLEST} at least")
    if int8 != bool(calibrate):
        missing = "--calibrate and pictures that it is for" if int8 else "--int8 true, or leave --calibrate out"
        raise SettingError(f"8-bit networks are made with both --int8 true and --calibrate: give {missing}")
    if int8 and out.suffix.lower() != ".onnx":
        raise SettingError(f"out is {out}: 8-bit networks are .onnx files")
    if out.suffix.lower() == ".onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            needed(module, "gscnn export to ONNX")
    pictures = None
    if int8:
        calibrate = [calibrate] if isinstance(calibrate, str) else calibrate
        found = [item.path for item in find_inputs(calibrate, MadeFiles()).inputs if not item.is_video]
        chosen = [found[index] for index in spread_indices(len(found), _MOST_PICTURES)]
        if not chosen:
            raise SettingError(f"--calibrate {' '.join(calibrate)} has no pictures: give some that the network is for")
        pictures = [read_picture(path) for path in chosen]
    task = load_task(checkpoint, "cpu")
    made = export_network(task, checkpoint, out, size, gates, pictures)
    say(f"compared with {checkpoint}: {made.difference}")
    if made.int8 is not None and pictures is not None:
        say(f"in 8 bits, on {len(pictures)} calibration pictures: labels equal on {100 * made.int8.equal:.2f} %")
    say(f"{out}: {made.size / 1e6:.1f} MB in {made.seconds:.0f} s")
