"""A server for a page on this machine alone, with the headers that let WebAssembly use several threads."""

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gscnn_lightning.errors import SettingError

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""What browsers ask of a page before its threads may share memory, and what keeps others from using its files."""


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012  # as the base class has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
        ".svg": "image/svg+xml",
    }

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said of every file."""


def server(folder: Path, port: int = 8000) -> ThreadingHTTPServer:
    """A server of a folder on 127.0.0.1, to be run by ``serve_forever``.

    Args:
        folder: of the page.
        port: 0 for any that is free.

    Raises:
        SettingError: the port is taken, or is none.
    """
    if not 0 <= port <= 65535:
        raise SettingError(f"--port {port} is none: give 0 to 65535")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise SettingError(f"--port {port} cannot be used ({error.strerror}): give another, or 0 for any") from error
