"""The file .env in the working directory, by python-dotenv's rules."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from dotenv.parser import parse_stream

from src.errors import ProxmoxError


@dataclass(frozen=True)
class EnvFile:
    """The file .env as it was read."""

    path: str = ""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    there: bool = False
    unread: tuple[int, ...] = ()  # lines that are no NAME=value
    problem: ProxmoxError | None = None  # why it cannot be read

    @classmethod
    def read(cls) -> EnvFile:
        try:
            path = os.path.abspath(".env")
        except OSError:  # the working directory is gone
            return cls(".env")
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                kind = "a folder" if os.path.isdir(path) else "no regular file"
                return _unreadable(path, f"it is {kind}", "Remove it")
            with open(path, "rb") as file:
                raw = file.read()
            found = list(parse_stream(io.StringIO(raw.decode())))
        except FileNotFoundError:
            return cls(path)
        except UnicodeDecodeError:
            utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
            kind = "UTF-16, as PowerShell's > writes it" if utf16 else "not UTF-8"
            return _unreadable(path, f"it is {kind}", "Save it as UTF-8")
        except OSError as error:
            advice = "Let this user read it and its folder"
            return _unreadable(path, str(error.strerror), advice)
        values = {each.key: each.value or "" for each in found if each.key}
        wrong = tuple(each.original.line for each in found if each.error)
        return cls(path, values, True, wrong)

    @property
    def about(self) -> str:
        """What was read, for those who look for a mistake."""
        if self.problem:
            return str(self.problem)
        if not self.path:
            return ""
        if not self.there:
            return (
                f"Only the environment was read, for there is no {self.path} (docker run: "
                "--env-file)."
            )
        lines = ", ".join(map(str, self.unread))
        unread = f" Line {lines} of it is no NAME=value." if lines else ""
        return f"The environment, which wins, and {self.path} were read.{unread}"


def _unreadable(path: str, reason: str, advice: str) -> EnvFile:
    problem = ProxmoxError(
        f"The file {path} cannot be read: {reason}",
        f"{advice}, or set the variables in the environment.",
    )
    return EnvFile(path, problem=problem)


def as_dotenv_reads(value: str) -> str:
    """The value without what `docker --env-file` leaves on it: quotes, a comment, CR."""
    value = value.strip()
    if "\n" in value:
        return value
    (binding, *_) = parse_stream(io.StringIO(f"X={value}"))
    if not binding.error:
        return binding.value or ""
    pair = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if pair else value
