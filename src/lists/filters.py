"""What list_machines can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from src.models import Machine


@dataclass(frozen=True)
class Filters:
    """Which machines are wanted; None, and an empty name, is no filter."""

    node: str | None = None
    status: str | None = None
    name: str | None = None  # a part of the name or of a tag, in any case

    def match(self, machine: Machine) -> bool:
        part = (self.name or "").lower()
        return (
            self.node in (None, machine.node)
            and self.status in (None, machine.status)
            and any(
                part in word.lower() for word in (machine.name or "", *machine.tags)
            )
        )

    @property
    def words(self) -> str:
        """on pve2 with status paused and name web"""
        with_ = [f"{n} {v}" for n, v in vars(self).items() if v and n != "node"]
        where = f" on {self.node}" if self.node else ""
        return where + (f" with {' and '.join(with_)}" if with_ else "")
