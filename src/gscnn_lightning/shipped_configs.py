"""The configs that come with the library, found by a short name; a path still means a path. What any config says."""

import difflib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

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
    """Whether a config is given as YAML, or by an address, rather than by path or name; a file that exists is a path.

    Example:
        >>> is_written_out("trainer: {max_epochs: 3}"), is_written_out("recipe/paper")
        (True, False)
    """
    with suppress(OSError, ValueError):  # too long a name, or characters that none can have
        if Path(given).is_file():
            return False
    return bool(set(given) & set(":{\n"))


def read_config(given: str | Path, what: str = "config", needs: str = "trainer: {max_epochs: 3}") -> dict[str, Any]:
    """Content of a config: keys and values, nested.

    Args:
        given: a file; as text also the name of a shipped config, or YAML.
        what: it is called in messages.
        needs: what one has to hold, for the message about one that does not.

    Raises:
        SettingError: there is no such config, or it cannot be read, is no YAML, or holds something else than keys with
            values; the message says where.
    """
    text = isinstance(given, str) and is_written_out(given)
    path = given if isinstance(given, Path) or text else find_config(given)
    shown = f"{what} {' '.join(str(path).split())[:200]}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8") if isinstance(path, Path) else path)
    except OSError as error:
        raise SettingError(f"{shown} cannot be read ({error.strerror}): check path and rights") from error
    except UnicodeDecodeError as error:
        raise SettingError(
            f"{shown} cannot be read (byte {error.start} is not UTF-8): it is no text, or of another encoding; save it "
            "as UTF-8"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that does not exist is a ValueError
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise SettingError(f"{shown} is not valid YAML ({reason[:200]}): correct it there") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise SettingError(f"{shown} holds {held}: write keys with values, such as {needs}")
    if _contains_itself(content, ()):
        raise SettingError(f"{shown} contains itself: an alias (*) stands below its own anchor (&); write it out")
    return content


def _contains_itself(node: object, above: tuple[int, ...]) -> bool:
    if id(node) in above:
        return True
    parts = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return any(_contains_itself(part, (*above, id(node))) for part in parts)


def config_names(kind: str = "") -> list[str]:
    """Names of the shipped configs that can be used as such, in order.

    Args:
        kind: folder that they are in, such as "sweep"; by default those of ``gscnn-fit``.
    """
    folder = CONFIGS / kind
    others = ("sweep", "classes")  # not configs of gscnn-fit
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted((name for name in names if kind or name.split("/")[0] not in others), key=lambda n: (n.count("/"), n))
