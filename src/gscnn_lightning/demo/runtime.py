"""onnxruntime-web, the program that computes networks in browsers: found, fetched once, and checked.

It is not part of this package, whose wheel would be forty megabytes larger for a page that few make. npm fetches it
from its registry, or whichever mirror npm is set to, once; what was fetched has a known checksum.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from gscnn_lightning.errors import SettingError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ADDRESS = f"https://registry.npmjs.org/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"

_LICENSE = """onnxruntime-web
Copyright (c) Microsoft Corporation. All rights reserved.

MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

PROCESSOR = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files that compute on the processor, by WebAssembly."""

GRAPHICS = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""Files that compute on the graphics processor, by WebGPU."""

_FOUND = PROCESSOR + GRAPHICS


def copy_runtime(out: Path, given: Path | None = None, webgpu: bool = True) -> None:
    """Put the files of onnxruntime-web into a folder, with their licence.

    Args:
        out: folder; it is made.
        given: the package as npm has it (.tgz), or a folder with its files, at any depth; fetched if None.
        webgpu: with those for WebGPU.

    Raises:
        SettingError: it is not there and cannot be fetched, or files are missing; the message says what to do.
    """
    names = PROCESSOR + (GRAPHICS if webgpu else ())
    with tempfile.TemporaryDirectory() as made:
        source = _cached() if given is None else given
        if source.is_file():
            _unpack(source, Path(made), f"--runtime {source}")
            source = Path(made)
        elif not source.is_dir():
            raise SettingError(f"--runtime {source} does not exist: give {ADDRESS} as it was downloaded, or a folder")
        found = {name: next(iter(sorted(source.rglob(name))), None) for name in names}
        absent = [name for name, path in found.items() if path is None]
        if absent:
            remedy = " or leave WebGPU out with --webgpu false" if set(absent) <= set(GRAPHICS) else ""
            raise SettingError(
                f"{source} lacks {absent[0]} of {PACKAGE} {VERSION}: give --runtime with all of its dist folder{remedy}"
            )
        out.mkdir(parents=True, exist_ok=True)
        for name, path in found.items():
            assert path is not None
            shutil.copyfile(path, out / name)
    (out / "LICENSE").write_text(_LICENSE, encoding="utf-8")


def _cached() -> Path:
    """The folder of the files in the user's cache, where they are put if they are not there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "gscnn-lightning" / f"{PACKAGE}-{VERSION}"
    if all((folder / name).is_file() for name in _FOUND):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        package = _fetched(Path(made))
        if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != _SHA512:
            raise SettingError(
                f"what npm gave as {PACKAGE} {VERSION} is not what was published under this name, and was not used: "
                f"see which registry npm asks, or download {ADDRESS} and give it as --runtime"
            )
        unpacked = Path(made) / "files"
        unpacked.mkdir()
        _unpack(package, unpacked, package.name)
        if not folder.exists():
            unpacked.rename(folder)
    return folder


def _fetched(folder: Path) -> Path:
    """The package, fetched by npm, which knows proxies and mirrors."""
    remedy = f"download {ADDRESS} where there is network, and give it as --runtime FILE"
    npm = shutil.which("npm")
    if npm is None:
        raise SettingError(f"{PACKAGE} has to be fetched once, and there is no npm to do it: {remedy}")
    done = subprocess.run(
        [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--loglevel=error"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    package = next(iter(folder.glob("*.tgz")), None)
    if done.returncode or package is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise SettingError(f"npm cannot fetch {PACKAGE} {VERSION} ({lines[0].strip()[:160]}): {remedy}")
    return package


def _unpack(package: Path, out: Path, called: str) -> None:
    """Write the files that are needed, whatever else is in the package and wherever it would go."""
    try:
        with tarfile.open(package) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if name in _FOUND and member.isfile() else None
                if content is not None:
                    (out / name).write_bytes(content.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SettingError(f"{called} cannot be unpacked ({type(error).__name__}): give {ADDRESS} as it is") from error
