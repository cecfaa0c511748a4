"""Files of annotations: what they hold, and what the frames are called whose images they name."""

import json
from pathlib import Path
from typing import Any

from gscnn_lightning.errors import DataError


def load_json(file: Path, setting: str) -> Any:  # noqa: ANN401
    """What is in a JSON file.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror}): correct {setting} (--data.{setting} FILE)") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}): export or copy it again") from error


def frame_name(name: str) -> str:
    """Name of a frame by the path of its image: without suffix, and without what leads out of a folder."""
    path = Path(name).with_suffix("")
    return Path(*(part for part in path.parts if part not in ("..", path.anchor))).as_posix()
