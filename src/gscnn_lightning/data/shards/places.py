"""Where shards lie: a folder, or a bucket of an object store."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gscnn_lightning.data.files import shown, user_path
from gscnn_lightning.errors import DataError, SettingError

NEEDS_LITDATA = "litdata is not installed, which {what} needs: pip install 'gscnn-lightning[streaming]'"

_Result = TypeVar("_Result")


class Place(ABC):
    """Files by relative name, with slashes.

    Attributes:
        address: what messages call it.
    """

    address: str

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            DataError: it is missing, or cannot be read.
        """

    @abstractmethod
    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Bytes of a file; fewer where it ends before.

        Raises:
            DataError: it is missing, or cannot be read.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file as a whole, or not at all.

        Raises:
            DataError: it cannot be written.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove files, those that are not there included."""

    @abstractmethod
    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of all files, or of those in a folder, by name.

        Raises:
            DataError: the place cannot be listed.
        """

    @contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Keep others from writing here, as far as the place can; not at all by default.

        Args:
            name: of a file that is there.

        Raises:
            DataError: somebody else is writing.
        """
        yield


class Folder(Place):
    """A folder; nothing is open between two calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def read(self, name: str) -> bytes:
        """Content of a file."""
        return self._of(name, lambda path: path.read_bytes())

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Bytes of a file."""

        def read(path: Path) -> bytes:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(length)

        return self._of(name, read)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears when it is complete."""
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.unfinished")
            unfinished.write_bytes(content)
            unfinished.replace(path)
        except OSError as error:
            raise DataError(f"cannot write {path} ({error.strerror or error}): make room, or give another") from error

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of all files."""
        found: dict[str, int] = {}
        folders = [self.path / below]
        try:
            while folders:
                folder = folders.pop()
                if not folder.exists():
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir():
                            folders.append(Path(entry.path))
                        else:
                            found[Path(entry.path).relative_to(self.path).as_posix()] = entry.stat().st_size
        except OSError as error:
            raise DataError(f"cannot list {error.filename} ({error.strerror}): correct the path, or make it") from error
        return found

    @contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Lock a file; the lock ends with the process, however that ends."""
        try:
            import fcntl  # of Unix
        except ImportError:
            yield
            return
        with (self.path / name).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(
                    f"another gscnn data pack is writing to {self.address}: wait for it, or give another --out"
                ) from error
            yield

    def _of(self, name: str, read: Callable[[Path], _Result]) -> _Result:
        path = self.path / name
        try:
            return read(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{path} is missing: copy the shards again, or pack them again") from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error


class Bucket(Place):
    """A prefix of a bucket of an object store with the interface of S3, through litdata's client.

    The client is made where it is first used, in every process anew. Key, region and endpoint are those of the AWS
    tools: AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL and so on.
    """

    def __init__(self, address: str) -> None:
        try:
            from botocore.config import Config
            from litdata.streaming.client import S3Client
        except ModuleNotFoundError as error:
            raise SettingError(NEEDS_LITDATA.format(what=address)) from error
        path = address.removeprefix("s3://").strip("/")
        self.address = f"s3://{path}"
        self.bucket, _, prefix = path.partition("/")
        if not self.bucket:
            raise SettingError(f"{address} names no bucket: write s3://BUCKET/FOLDER")
        self.prefix = f"{prefix}/" if prefix else ""
        # litdata's own default would go on for hours if nobody answers.
        config = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60)
        self._client = S3Client(storage_options={"config": config})

    def read(self, name: str) -> bytes:
        """Content of an object."""
        return self._of(name, lambda key: self._client.client.get_object(**key)["Body"].read())

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object."""
        part = f"bytes={start}-{start + length - 1}"
        return self._of(name, lambda key: self._client.client.get_object(**key, Range=part)["Body"].read())

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        self._of(name, lambda key: self._client.client.put_object(**key, Body=content))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects."""
        remove = self._client.client.delete_object
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self._of(name, lambda key: remove(**key)), names))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of all objects."""
        prefix = self.prefix + (f"{below}/" if below else "")

        def listed(key: dict[str, str]) -> dict[str, int]:
            pages = self._client.client.get_paginator("list_objects_v2").paginate(Bucket=key["Bucket"], Prefix=prefix)
            objects = (part for page in pages for part in page.get("Contents", []))
            return {part["Key"].removeprefix(self.prefix): part["Size"] for part in objects}

        return self._of(below, listed)

    def _of(self, name: str, use: Callable[[dict[str, str]], _Result]) -> _Result:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

        path = f"{self.address}/{name}".rstrip("/")
        try:
            return use({"Bucket": self.bucket, "Key": self.prefix + name})
        except NoCredentialsError as error:
            keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            raise DataError(f"no key for {path}: {keys}") from error
        except ClientError as error:
            told: dict[str, Any] = error.response.get("Error", {})
            code = told.get("Code", "?")
            if code in ("NoSuchKey", "404"):
                raise DataError(f"{path} is missing: copy the shards again, or pack them again") from error
            if code == "InvalidRange":
                return b""  # type: ignore[return-value]  # of read_part alone: the object ends before
            if code == "NoSuchBucket":
                raise DataError(f"{path}: there is no bucket {self.bucket}: make it, or correct the name") from error
            raise DataError(f"cannot use {path} ({code}: {told.get('Message', '')})") from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot reach {path} ({reason}): correct it or AWS_ENDPOINT_URL, or try again") from error


def place_of(address: str, name: str) -> Place:
    """The place of an address.

    Args:
        address: a folder, or s3://BUCKET/FOLDER.
        name: of the setting, for messages.

    Raises:
        SettingError: the address is of another kind, or litdata is needed and not installed.
        DataError: it cannot be a path.
    """
    if address.startswith("s3://"):
        return Bucket(address)
    if "://" in address:
        raise SettingError(f"{name} is {shown(address)}: give a folder, or s3://BUCKET/FOLDER")
    return Folder(user_path(address, name))


class LocalCopies(Place):
    """Files of another place, copied to a folder when they are first used, as far as they are wanted there.

    Which files are copied is settled beforehand, so that nothing has ever to be thrown away, and any number of
    processes may share the folder. While one of them copies a file, others read what they need from the other place.

    Args:
        place: where the files are.
        folder: where copies go.
        wanted: bytes of the files to copy, by name.
    """

    def __init__(self, place: Place, folder: Path, wanted: dict[str, int]) -> None:
        self.place = place
        self.address = place.address
        self.copies = Folder(folder)
        self.wanted = wanted

    def read(self, name: str) -> bytes:
        """Content of a file, which is not copied."""
        return self.place.read(name)

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Bytes of a file."""
        if name not in self.wanted:
            return self.place.read_part(name, start, length)
        path = self.copies.path / name
        if not self._is_there(path, name) and not self._copied(path, name):
            return self.place.read_part(name, start, length)
        return self.copies.read_part(name, start, length)

    def write(self, name: str, content: bytes) -> None:
        """Write to the other place."""
        self.place.write(name, content)

    def remove(self, names: Iterable[str]) -> None:
        """Remove copies alone, so that damaged ones are copied again."""
        self.copies.remove(names)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of all files in the other place."""
        return self.place.sizes(below)

    def _is_there(self, path: Path, name: str) -> bool:
        try:
            return path.stat().st_size == self.wanted[name]
        except OSError:
            return False

    def _copied(self, path: Path, name: str) -> bool:
        """Whether a file is there, having been copied here if nobody else is about to."""
        import fcntl  # of Unix

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_name(f"{path.name}.lock").open("wb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return False
                if not self._is_there(path, name):
                    self.copies.write(name, self.place.read(name))
            return True
        except OSError as error:
            raise DataError(f"cannot copy shards to {path.parent} ({error.strerror}): give another folder") from error
