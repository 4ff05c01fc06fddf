"""The .env file of the working directory or the project, parsed by python-dotenv's rules."""

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from dotenv.parser import parse_stream

from src.config.files import Fault, Unreadable, read_file
from src.errors import ProxmoxError

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VARIABLES = (
    *("PROXMOX_URL", "PROXMOX_USER", "PROXMOX_TOKEN_ID", "PROXMOX_TOKEN_SECRET"),
    "PROXMOX_VERIFY_SSL",
)
CURES: dict[Fault, str] = {
    "folder": "Remove it",
    "special": "Replace it with a regular file",
    "UTF-16": "Save it as UTF-8",
}


@dataclass(frozen=True)
class EnvFile:
    """The .env file as it was read."""

    path: str = ""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    exists: bool = False
    malformed: tuple[int, ...] = ()  # the lines that are not NAME=value
    problem: ProxmoxError | None = None  # why it cannot be read

    @classmethod
    def read(cls) -> Self:
        """Read .env in the working directory, or else in the project's folder.

        Assistants start the server where their user works, so a .env there without any
        of the five variables is another program's, if the project's folder has one. If .env
        cannot be read, `problem` says why. A missing file is no problem.
        """
        return min(map(cls.at, _paths()), key=_rank)

    @classmethod
    def at(cls, path: str) -> Self:
        """Read the file at a path."""
        try:
            bindings = list(parse_stream(io.StringIO(read_file(path).decode())))
        except Unreadable as error:
            if error.fault == "missing":
                return cls(path)
            cure = CURES.get(error.fault, "Let this user read it and its folder")
            return cls(path, problem=_problem(path, error.reason, cure))
        except UnicodeDecodeError:
            return cls(path, problem=_problem(path, "is not UTF-8", "Save it as UTF-8"))
        values = {each.key: each.value or "" for each in bindings if each.key}
        malformed = tuple(each.original.line for each in bindings if each.error)
        return cls(path, values, True, malformed)

    @staticmethod
    def version() -> tuple[tuple[int, int] | None, ...]:
        """Return which versions of .env there are, to notice a correction, or () without any."""
        versions = tuple(_version(path) for path in _paths())
        return versions if any(versions) else ()

    @property
    def about(self) -> str:
        """Say what was read, for a person who looks for a mistake."""
        if self.problem:
            return str(self.problem)
        if not self.path:
            return ""
        if not self.exists:
            folders = " or ".join(dict.fromkeys((os.path.dirname(self.path), PROJECT)))
            read = "Only the environment (in a container, its --env-file) was read"
            return f"{read}: there is no .env in {folders}."
        lines = ", ".join(map(str, self.malformed))
        ignored = f" Ignored, because not NAME=value: line {lines}." if lines else ""
        return (
            f"Settings were read from {self.path} and from the environment, which takes "
            f"precedence.{ignored}"
        )


def _paths() -> list[str]:
    """Return the path of .env in the working directory, and of that in the project's folder."""
    paths = [os.path.join(PROJECT, ".env")]
    with contextlib.suppress(OSError):  # the working directory is gone
        paths.insert(0, os.path.abspath(".env"))
    return list(dict.fromkeys(paths))


def _rank(file: EnvFile) -> int:
    """Return 0 for a file that is meant for this server, and more for others."""
    if file.values.keys() & set(VARIABLES):
        return 0
    return 1 if file.problem else 2 if file.exists else 3


def _version(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _problem(path: str, reason: str, cure: str) -> ProxmoxError:
    return ProxmoxError(f"{path} {reason}", f"{cure}, or set the variables in the environment.")


def unquote(value: str) -> str:
    """Remove what `docker --env-file` leaves on a value: quotes, a comment, CR."""
    value = value.strip()
    if "\n" in value:
        return value
    (binding, *_) = parse_stream(io.StringIO(f"X={value}"))
    if not binding.error:
        return binding.value or ""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
