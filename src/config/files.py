"""Read a file that the user names, or find out why it cannot be read."""

import os
from typing import Literal

Fault = Literal["missing", "folder", "special", "forbidden", "UTF-16", "other"]


class Unreadable(Exception):
    """A file cannot be read: `reason` continues the sentence "FILE ...", `fault` is its kind."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason


def read_file(path: str) -> bytes:
    """Return the content of a regular file. Raises Unreadable.

    A pipe is refused, because reading one without a writer would hang the server.
    """
    try:
        if os.path.isdir(path):
            raise Unreadable("folder", "is a folder")
        if os.path.exists(path) and not os.path.isfile(path):
            raise Unreadable("special", "is not a regular file")
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable("missing", "does not exist") from None
    except PermissionError:
        raise Unreadable("forbidden", "cannot be read by this user") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        said = getattr(error, "strerror", None) or "it is not a valid path"
        raise Unreadable("other", f"cannot be read: {said}") from None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Unreadable("UTF-16", "is UTF-16, which PowerShell's > writes")
    return content
