"""``gscnn publish``."""

from pathlib import Path


def publish(
    source: str,
    /,
    out: Path,
    push: str | None = None,
    name: str | None = None,
    license: str | None = None,
    data_license: str | None = None,
    picture: str | None = None,
    scores: Path | None = None,
    private: bool = False,
    branch: str | None = None,
    overwrite: bool = False,
) -> None:
    """Make a folder for a model hub of a run: weights, settings and a model card; upload it if asked to.

    The folder has model.safetensors, config.json (network, classes, normalisation), README.md (the model card, made of
    the run's own files) and picture.jpg. It is read back and computes the same logits to the bit, or it is removed.
    Every command that takes a checkpoint takes the folder, and hf:OWNER/NAME.

    Examples:
      gscnn publish runs/camvid/version_0 --out gscnn-camvid
      gscnn publish RUN/checkpoints/best.ckpt --out gscnn-camvid --picture street.jpg --license cc-by-nc-4.0
      gscnn publish runs/camvid/version_0 --out gscnn-camvid --push OWNER/gscnn-camvid --private true

    Args:
        source: folder of a run (its best checkpoint is taken), a checkpoint, or a network of a hub.
        out: folder to write.
        push: OWNER/NAME on the Hugging Face hub to upload the folder to; needs a token (hf auth login, or HF_TOKEN).
        name: title of the model card.
        license: licence of the weights as hubs write it, such as apache-2.0 or cc-by-nc-4.0.
        data_license: licence of the data in words; that of the data sets of this library is known.
        picture: photo that the network predicts for the card, or none; by default the contact sheet of the run.
        scores: run of gscnn-fit test, or folder of gscnn score, with the scores of this network.
        private: a repository that the upload makes is private.
        branch: branch to upload to.
        overwrite: replace a network that is in the folder.

    Raises:
        GSCNNError: something cannot be read, written or uploaded; the message says what.
    """
    from gscnn_lightning.hub_files import HUB
    from gscnn_lightning.models.pretrained import check_repo_name, upload
    from gscnn_lightning.prediction.files import output_folder
    from gscnn_lightning.publishing.folder import make_folder
    from gscnn_lightning.terminal import say

    repo = None if push is None else push.removeprefix(HUB)
    if repo is not None:
        check_repo_name(repo)  # before anything is made
    out = output_folder(out)
    for note in make_folder(source, out, name, repo, license, data_license, picture, scores, overwrite):
        say(f"note: {note}", stderr=True)
    say(f"{out} has the network: gscnn predict {out} photos/")
    if repo is not None:
        say(f"uploaded: {upload(out, repo, private=private or None, branch=branch)}")
        say(f"gscnn predict {HUB}{repo} photos/")
