"""Programs that run exported files: one function from a file to a function of pictures."""

import functools
import importlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gscnn_lightning.errors import ExportError

Runtime = Literal["onnxruntime", "openvino", "tensorrt"]

SUFFIXES = (".onnx", ".pt2")
"""Of exported files."""

FACTS = "gscnn.json"
"""File within a .pt2 file that has its metadata."""

Arrays = dict[str, npt.NDArray[Any]]

_MOST_BYTES = 1 << 31  # no ONNX file without other files beside it can be larger

# What programs of torch may be made of: its own operators on tensors, and arithmetic with sizes.
_TARGET = re.compile(
    r"(torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.\w+|math\.\w+|torch\.sym_\w+|"
    r"torch\.ops\.higher_order\.wrap_with_set_grad_enabled)"
)
_LOGIC = re.compile(r"^torch\.ops\.aten\.__(and|or|xor)__\.")  # of conditions on free sizes
_WORDS = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = (
    "Max|Min|(Python)?Mod|(Floor|Ceil|Clean|IntTrue|FloatTrue)Div|(Trunc|Ceil|Floor)ToInt|ToFloat|[A-Z][a-z]|Abs"
)
_OTHERS = (
    "And|Or|Not|and|or|not|True|False|Piecewise|floor|ceil(ing)?|trunc|(int_)?oo|inf|L|args|kwargs|size|shape|image"
)
_SYMBOLS = "Symbol|Integer|Rational|Mul|Add|Pow|positive|nonnegative|integer|real"
_ARITHMETIC = re.compile(rf"{_FUNCTIONS}|{_OTHERS}|math|float|int|torch|sym_(min|max)|{_SYMBOLS}|[su]\d+")


class Loaded(NamedTuple):
    """An exported file that can be run.

    Attributes:
        texts: its metadata.
        inputs: shape of each input by its name, with names or None where any size will do.
        outputs: names of the outputs.
        run: outputs by name of a picture (B, H, W, 3) uint8; several threads may call it.
    """

    texts: Mapping[str, str]
    inputs: Mapping[str, tuple[Any, ...]]
    outputs: tuple[str, ...]
    run: Callable[[npt.NDArray[np.uint8]], Arrays]


def is_exported(path: str | Path) -> bool:
    """Whether a file is an exported one, by its name."""
    return str(path).lower().endswith(SUFFIXES)


def load(path: str, runtime: Runtime | None = None, device: str = "auto", threads: int | None = None) -> Loaded:
    """A file, ready to run.

    Args:
        path: .onnx or .pt2.
        runtime: of .onnx files, ONNX Runtime by default.
        device: "auto", "cpu" or "cuda".
        threads: that one picture may take; torch's number by default.

    Raises:
        ExportError: the file is missing, damaged, holds what no export has, or asks for what is not installed.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise ExportError(f"exported network {path} {what}: check the path")
    threads = torch.get_num_threads() if threads is None else threads
    if path.lower().endswith(".pt2"):
        if runtime is not None:
            raise ExportError(f"{path} is run by torch: --runtime {runtime} takes .onnx files; leave --runtime out")
        return _torch(path, device)
    if Path(path).stat().st_size >= _MOST_BYTES:
        raise ExportError(f"{path} has more than 2 GB, which no ONNX file can have: it is damaged or something else")
    runners = {"onnxruntime": _onnxruntime, "openvino": _openvino, "tensorrt": _tensorrt}
    return runners[runtime or "onnxruntime"](path, device, threads)


def needed(module: str, reason: str) -> ModuleType:
    """A module of the extra `export`.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        # What comes with the extra, and what only a user's own machine can tell the right build of.
        remedy = package if package == "openvino" else "'gscnn-lightning[export]'"
        raise ExportError(f"{reason} needs {package}, which is not installed: pip install {remedy}") from error


def _onnxruntime(path: str, device: str, threads: int, first: tuple[str, ...] = ()) -> Loaded:
    ort = needed("onnxruntime", f"{path}")
    there = ort.get_available_providers()
    wanted = [*first, *(["CUDAExecutionProvider"] if device.startswith("cuda") else [])]
    missing = [provider for provider in wanted if provider not in there]
    if missing:
        raise ExportError(
            f"device {device!r} of exported networks needs onnxruntime-gpu: this onnxruntime has "
            f"{', '.join(name.removesuffix('ExecutionProvider') for name in there)}. Use --device cpu"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        # The content, not the path: a model may name other files beside it, and no export of ours does.
        session = ort.InferenceSession(_content(path), options, providers=[*wanted, "CPUExecutionProvider"])
        texts = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:  # ONNX Runtime has an exception of its own for each kind of fault
        raise _unreadable(path, error) from error
    names = tuple(output.name for output in session.get_outputs())
    inputs = {given.name: tuple(given.shape) for given in session.get_inputs()}

    def run(image: npt.NDArray[np.uint8]) -> Arrays:
        return dict(zip(names, session.run(None, {next(iter(inputs)): image}), strict=True))

    return Loaded(texts, inputs, names, run)


def _tensorrt(path: str, device: str, threads: int) -> Loaded:
    ort = needed("onnxruntime", f"{path}")
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        raise ExportError(
            "runtime tensorrt is not installed here: it needs an NVIDIA GPU, TensorRT and onnxruntime-gpu (pip install "
            "onnxruntime-gpu tensorrt). Leave --runtime out for ONNX Runtime"
        )
    return _onnxruntime(path, device, threads, ("TensorrtExecutionProvider",))


@functools.cache
def _openvino_core() -> Any:  # noqa: ANN401
    """OpenVINO for the CPU, the same for the whole process and never taken down.

    Its plugin for CPUs gives the thread that makes it another stack for signal handlers. If it is taken down by another
    thread, or before a younger one, the thread is left with a stack that is no more, and the next signal (the end of a
    loading process, say) ends the program.
    """
    return needed("openvino", "runtime openvino").Core()


def _openvino(path: str, device: str, threads: int) -> Loaded:
    if device not in ("auto", "cpu"):
        raise ExportError(f"runtime openvino runs on the CPU here, not on {device}: leave --device out")
    needed("openvino", "runtime openvino")
    onnx = needed("onnx", f"{path}")
    try:
        content = _content(path)
        # OpenVINO keeps metadata, but not as texts by their names.
        texts = {prop.key: prop.value for prop in onnx.load_model_from_string(content).metadata_props}
        core = _openvino_core()
        # In float32 as everything else here; by default some processors compute in bfloat16.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(core.read_model(content, b""), "CPU", settings)
    except Exception as error:
        raise _unreadable(path, error) from error
    inputs = {port.get_any_name(): tuple(str(side) for side in port.get_partial_shape()) for port in compiled.inputs}
    names = tuple(port.get_any_name() for port in compiled.outputs)

    def run(image: npt.NDArray[np.uint8]) -> Arrays:
        # A request of its own for every call, as threads would share one otherwise.
        found = compiled.create_infer_request().infer({0: image})
        return {name: np.array(found[index]) for index, name in enumerate(names)}

    return Loaded(texts, inputs, names, run)


def _torch(path: str, device: str) -> Loaded:
    if device not in ("auto", "cpu"):
        raise ExportError(f"{path} is a program for the CPU, not for {device}: leave --device out")
    try:
        texts = _checked_program(path)
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        program = torch.export.load(path)
        module: Any = program.module()
    except ExportError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    names = tuple(json.loads(texts["outputs"]))

    @torch.inference_mode()
    def run(image: npt.NDArray[np.uint8]) -> Arrays:
        found = module(torch.from_numpy(np.ascontiguousarray(image)))
        return {name: tensor.numpy() for name, tensor in zip(names, found, strict=True)}

    return Loaded(texts, {"image": (None, None, None, 3)}, names, run)


def _checked_program(path: str) -> dict[str, str]:
    """Metadata of a .pt2 file that is nothing but a program of tensors.

    `torch.export.load` unpickles, and evaluates the texts of sizes: what a file of someone else says there would run.

    Raises:
        ExportError: something else is in it.
    """
    with zipfile.ZipFile(path) as file:
        if any(info.compress_type != zipfile.ZIP_STORED for info in file.infolist()):
            raise _altered(path, "it is compressed")
        names = [info.filename.partition("/")[2] for info in file.infolist()]
        content = {name: file.read(info) for name, info in zip(names, file.infolist(), strict=True)}
    programs = [name for name in names if name.endswith(".json") and name.startswith("models/")]
    if f"extra/{FACTS}" not in names or len(programs) != 1 or len(set(names)) != len(names):
        raise ExportError(f"{path} was not made by gscnn export: give a file that gscnn export has written")
    for name, data in content.items():
        if data[:2] == b"PK" and name.startswith("data/sample_inputs/"):
            torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")  # as torch tries first
        elif name.endswith(".json"):
            _check_texts(json.loads(data), path, name)
        elif not re.fullmatch(
            r"(data/(weights|constants)/(weight|tensor)_\d+|byteorder|version|archive_\w+|"
            r"\.data/\w+|\.format/\w+|data/sample_inputs/\w+\.pt)",
            name,
        ) or (data[:2] == b"PK"):
            raise _altered(path, f"it holds {name[:80]}")
    return {str(key): str(value) for key, value in json.loads(content[f"extra/{FACTS}"]).items()}


def _check_texts(node: Any, path: str, name: str, key: str = "") -> None:  # noqa: ANN401
    """Raise if a text that torch would look up or evaluate is something else than an operator or arithmetic."""
    if isinstance(node, dict):
        for inner, value in node.items():
            if inner == "use_pickle" and value:
                raise _altered(path, f"{name} names something to unpickle")
            _check_texts(value, path, name, inner)
    elif isinstance(node, list):
        for value in node:
            _check_texts(value, path, name, key)
    elif isinstance(node, str) and (key in ("expr_str", "guards_code") or key == "target"):
        if key == "target":
            fine = bool(_TARGET.fullmatch(node)) and "__" not in _LOGIC.sub("", node)
        else:
            fine = all(_ARITHMETIC.fullmatch(word) for word in _WORDS.findall(node)) and len(node) < 100_000
        if not fine:
            raise _altered(path, f"{name} has {key} {node[:80]!r}")


def _content(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read()


def _altered(path: str, what: str) -> ExportError:
    line = "".join(letter if letter.isprintable() else "?" for letter in what)
    return ExportError(f"{path}: {line}: it was altered or comes from elsewhere, and nothing of it was used")


def _unreadable(path: str, error: Exception) -> ExportError:
    reason = " ".join(str(error).split()).replace(str(Path.cwd()), ".")[:160] or type(error).__name__
    return ExportError(
        f"exported network {path} cannot be read ({reason}): it is damaged or of another kind. Give a file that gscnn "
        "export has written"
    )
