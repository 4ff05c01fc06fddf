"""Which machines a call of list_machines asks for, and what it does not show."""

from dataclasses import dataclass, replace

from src.models import Machine


@dataclass(frozen=True)
class Filters:
    """The arguments of list_machines. None is no filter. Upper and lower case are the same."""

    node: str | None = None
    status: str | None = None
    name: str | None = None  # part of the name, or the id
    tag: str | None = None  # exactly one of the tags
    pool: str | None = None  # exactly the pool

    def match(self, machine: Machine) -> bool:
        """Whether the machine passes every filter."""
        name = (self.name or "").lower()
        tag, pool = ((each or "").lower() for each in (self.tag, self.pool))
        return (
            self.node in (None, machine.node)
            and self.status in (None, machine.status)
            and (name in (machine.name or "").lower() or name == str(machine.vm_id))
            and (not tag or tag in [each.lower() for each in machine.tags])
            and (not pool or pool == (machine.pool or "").lower())
        )

    @property
    def narrows(self) -> bool:
        """Whether it asks for some of a node's machines."""
        return any(value for key, value in vars(self).items() if key != "node")

    @property
    def words(self) -> str:
        """Write "status paused, name web", or nothing."""
        return ", ".join(f"{n} {v}" for n, v in vars(self).items() if v and n != "node")

    def cannot_match(self, machine: Machine) -> bool:
        """Whether nobody can tell, because the machine's name, and with it its tags, is unknown."""
        if machine.name or machine.live:
            return False
        name = self.name if self.name != str(machine.vm_id) else None
        tag = self.tag if not machine.tags else None
        known = replace(self, name=None if name else self.name, tag=None if tag else self.tag)
        return bool(name or tag) and known.match(machine)
