"""Which machines a call of list_machines asks for."""

from dataclasses import dataclass

from src.models import Machine


@dataclass(frozen=True)
class Filters:
    """The arguments of list_machines. None is no filter."""

    node: str | None = None
    status: str | None = None
    name: str | None = None  # part of the name or of a tag, in upper or lower case

    def match(self, machine: Machine) -> bool:
        """Whether the machine passes every filter."""
        part = (self.name or "").lower()
        return (
            self.node in (None, machine.node)
            and self.status in (None, machine.status)
            and any(part in word.lower() for word in (machine.name or "", *machine.tags))
        )

    @property
    def words(self) -> str:
        """Write " on pve2 with status paused and name web", or nothing."""
        others = [f"{n} {v}" for n, v in vars(self).items() if v and n != "node"]
        where = f" on {self.node}" if self.node else ""
        return where + (f" with {' and '.join(others)}" if others else "")
