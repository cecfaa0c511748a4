"""The configs that come with the library, found by a short name; a path still means a path."""

import difflib
from contextlib import suppress
from pathlib import Path

from gscnn_lightning.errors import SettingError

_PACKAGE = Path(__file__).parent
# A clone on a file system without links has a file in the place of the link.
CONFIGS = next((f for f in (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs") if f.is_dir()), _PACKAGE / "configs")
"""Folder of the configs: package data of an installed library, a link to ``configs`` in a clone."""


def find_config(given: str, kind: str = "") -> Path:
    """File of a config.

    Args:
        given: a path, or the name of a shipped config without suffix, such as "scenes" or "recipe/paper".
        kind: folder of the shipped configs that names are relative to, such as "sweep".

    Raises:
        SettingError: there is neither such a file nor such a name.
    """
    with suppress(OSError, RuntimeError):  # too long a name, no such user
        path = Path(given).expanduser()
        if path.exists() and not path.is_dir():  # a pipe serves, too
            return path
    names = config_names(kind)
    if given in names:
        return CONFIGS / kind / f"{given}.yaml"
    close = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"shipped configs are {', '.join(names)}"
    raise SettingError(f"there is no file {given[:200]!r} and no shipped config of this name: {hint}")


def is_written_out(given: str) -> bool:
    """Whether a config is given as YAML, or by an address, rather than by path or name.

    Example:
        >>> is_written_out("trainer: {max_epochs: 3}"), is_written_out("recipe/paper")
        (True, False)
    """
    return bool(set(given) & set(":{\n"))


def config_names(kind: str = "") -> list[str]:
    """Names of the shipped configs that can be used as such, in order.

    Args:
        kind: folder that they are in, such as "sweep"; by default those of ``gscnn-fit``.
    """
    folder = CONFIGS / kind
    others = ("sweep", "classes")  # not configs of gscnn-fit
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted((name for name in names if kind or name.split("/")[0] not in others), key=lambda n: (n.count("/"), n))
