"""The one exception that stands for every failure a user can meet."""

# After these nobody knows whether Proxmox carried out what it was sent.
LOST = {"dropped", "broken", "timeout", "not the API", 502, 504, *range(595, 600)}


class ProxmoxError(Exception):
    """A failure in words for the person and the model that read it.

    `cause` says what happened, `advice` what to do next. `code` is the HTTP status, or
    "refused" (it never reached Proxmox), "dropped", "broken" (the line, perhaps after it left),
    "timeout" or "not the API"; "" for what was found before anything was sent.
    """

    def __init__(self, cause: str, advice: str = "", code: int | str = "") -> None:
        # A path may have bytes that are no UTF-8, which the protocol cannot carry.
        cause = cause.encode("utf-8", "backslashreplace").decode()
        self.cause = cause if cause[-1:] in ".?!" else f"{cause}."
        self.advice = advice.encode("utf-8", "backslashreplace").decode()
        self.code = code
        between = "" if advice.startswith("\n") else " "
        super().__init__(f"{self.cause}{between}{self.advice}".rstrip())

    @property
    def answer_lost(self) -> bool:
        """Whether a request that ended so may have been carried out all the same."""
        return self.code in LOST
