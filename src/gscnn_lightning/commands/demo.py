"""``gscnn demo``."""

from pathlib import Path


def demo(
    model: Path,
    /,
    out: Path = Path("site"),
    picture: Path | None = None,
    title: str | None = None,
    runtime: Path | None = None,
    webgpu: bool = True,
    serve: bool = False,
    port: int = 8000,
    overwrite: bool = False,
) -> None:
    """Make a page that segments pictures in the browser: a folder of static files, with nothing on a server.

    The page takes pictures by drop, paste, file or camera, and shows classes, boundaries and gates. It asks no other
    address for anything: network and runtime are in the folder. It has to be served, as browsers do not open such
    pages from files: --serve true does so on this machine, as does python -m http.server --directory OUT, and any host
    of static files.

    Examples:
      gscnn demo model.onnx --out site --picture street.jpg --serve true
      gscnn demo model.onnx --out site --runtime onnxruntime-web-1.30.0.tgz --webgpu false

    Args:
        model: network as gscnn export writes it.
        out: folder to write.
        picture: the first picture that is seen; by default that of the export, or a drawn street.
        title: heading of the page; by default the file's name.
        runtime: package of onnxruntime-web as npm has it (.tgz), or a folder with its files; by default npm fetches it
            once, and it is kept in ~/.cache/gscnn-lightning.
        webgpu: compute on the graphics processor where there is one; false leaves out its 27 megabytes.
        serve: serve the page on this machine until Ctrl-C.
        port: of the server; 0 takes any that is free.
        overwrite: replace a page that is in the folder.

    Raises:
        GSCNNError: the network or the picture cannot be used, or the runtime is not there; the message says what to do.
    """
    from gscnn_lightning.demo.serve import server
    from gscnn_lightning.demo.site import ABOUT, make_site, read_network
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.prediction.files import output_folder
    from gscnn_lightning.terminal import say

    read_network(model)  # before a folder is made
    out = output_folder(out)
    if any(out.iterdir()) and not ((out / ABOUT).is_file() and overwrite):
        what = "has a page already: choose another --out, or --overwrite true"
        what = what if (out / ABOUT).is_file() else "is not empty, and no page: choose another --out"
        raise SettingError(f"{out} {what}")
    made = make_site(model, out, model.stem if title is None else title, picture, runtime, webgpu)
    size = sum(path.stat().st_size for path in made) / 1e6
    say(f"{out} has the page: {len(made)} files, {size:.0f} MB, the largest {made[0].relative_to(out)}")
    if not serve:
        say(f"to look at it: python -m http.server --directory {out}, or gscnn demo with --serve true")
        return
    with server(out, port) as running:
        say(f"http://127.0.0.1:{running.server_address[1]}/ until Ctrl-C")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            say("stopped")
