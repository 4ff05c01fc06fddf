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

        Assistants start the server where their user works. So a file there without any of the
        five variables is another program's, and only counts if the project has none either.
        """
        return min(map(cls.at, _paths()), key=_rank)

    @classmethod
    def at(cls, path: str) -> Self:
        """Read a file. `problem` says why it cannot be read. A missing file is no problem."""
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
    def versions() -> dict[str, tuple[int, int] | None]:
        """Return by path which version of each .env there is, to notice a correction."""
        return {path: _version(path) for path in _paths()}

    @property
    def is_ours(self) -> bool:
        """Whether it sets one of the five variables. Other programs have PROXMOX_ names, too."""
        return not self.values.keys().isdisjoint(VARIABLES)

    @property
    def about(self) -> str:
        """Say what was read, for a person who looks for a mistake."""
        if self.problem:
            return str(self.problem)
        if not self.path:
            return ""
        lines = ", ".join(map(str, self.malformed))
        ignored = f" Ignored, because not NAME=value: line {lines}." if lines else ""
        if self.is_ours:
            read = f"Settings were read from {self.path} and from the environment"
            return f"{read}, which takes precedence.{ignored}"
        folders = " or ".join(dict.fromkeys((os.path.dirname(self.path), PROJECT)))
        why = f"there is no .env in {folders}"
        if self.exists:
            others = "".join(f", nor does {each}" for each in _paths() if each != self.path)
            why = f"{self.path} sets none of this server's variables{others}"
        return f"Only the environment (in a container, its --env-file) was read: {why}.{ignored}"


def _paths() -> list[str]:
    """Return where .env can be: in the working directory, and in the project's folder."""
    paths = [os.path.join(PROJECT, ".env")]
    with contextlib.suppress(OSError):  # the working directory is gone
        paths.insert(0, os.path.abspath(".env"))
    return list(dict.fromkeys(paths))


def _rank(file: EnvFile) -> int:
    """Sort ours before one that may be ours but cannot be read, others, and missing ones."""
    return 0 if file.is_ours else 1 if file.problem else 2 if file.exists else 3


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
