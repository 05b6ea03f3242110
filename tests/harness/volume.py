"""Small file systems of their own for tests that fill a disk or cut its power."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

# EXT4_IOC_SHUTDOWN, and its flag for a journal that is not flushed: what xfstests cut the power with.
SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING_THE_JOURNAL = 2


class NoMount(Exception):
    """This machine does not let us mount."""


class Volume:
    """A file system of `mebibytes`, mounted at `path` as long as it is entered; needs root."""

    def __init__(self, kind: str, path: Path, mebibytes: int):
        self.kind, self.path, self.mebibytes = kind, path, mebibytes
        self.image = path.with_suffix(".image")

    def __enter__(self) -> "Volume":
        self.path.mkdir(parents=True)
        if self.kind != "tmpfs":
            with open(self.image, "wb") as file:
                file.truncate(self.mebibytes << 20)
            do(f"mkfs.{self.kind}", "-q", "-m", "0", str(self.image))
        self._mount()
        return self

    def __exit__(self, *_) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def stop_writing(self) -> None:
        """From now on nothing reaches the disk any more, neither data nor the journal: the power is off."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(directory)

    def boot(self) -> None:
        """Mounts what is left; nobody may have files open."""
        subprocess.run(["umount", str(self.path)], check=True)
        self._mount()

    def _mount(self) -> None:
        if self.kind == "tmpfs":
            do("mount", "-t", "tmpfs", "-o", f"size={self.mebibytes}m", "tmpfs", str(self.path))
        else:
            do("mount", "-t", self.kind, "-o", "loop", str(self.image), str(self.path))


def do(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NoMount(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise NoMount(f"{' '.join(command)}: {error.stderr.strip()}") from error
