"""``gscnn import-release``."""

from pathlib import Path


def import_release(file: Path, /, out: Path, num_classes: int | None = None, overwrite: bool = False) -> None:
    """Convert the published Gated-SCNN checkpoint into one of gscnn-fit.

    Then: gscnn-fit validate --ckpt_path OUT --data CityscapesDataModule --data.root cityscapes

    The ImageNet weights of WideResNet-38 need no conversion: gscnn-fit takes that file as --model.backbone_weights.

    Examples:
      gscnn import-release FILE --out gscnn.ckpt

    Args:
        file: the published checkpoint.
        out: checkpoint to write.
        num_classes: if not the 19 of Cityscapes; the last layer then starts from random weights.
        overwrite: replace an existing file.
    """
    from gscnn_lightning import release
    from gscnn_lightning.terminal import say

    release.import_release(file, out, num_classes, overwrite)
    say(f"{out} is a checkpoint for gscnn-fit and GSCNNTask.load_from_checkpoint")
