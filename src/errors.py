"""The one exception that stands for every failure a user can run into."""

# After these nobody knows whether Proxmox carried out the request.
OUTCOME_UNKNOWN = {"dropped", "broken", "timeout", "not the API", 502, 504, *range(595, 600)}


class ProxmoxError(Exception):
    """A failure in words for the person and the model that read it.

    `cause` says what happened, `advice` what to do next. `code` is the HTTP status of the
    answer, or "refused" (the request never reached Proxmox), "dropped" or "broken" (the
    connection failed, perhaps after the request was sent), "timeout" or "not the API". It
    is "" for a mistake that was found before anything was sent.
    """

    def __init__(self, cause: str, advice: str = "", code: int | str = "") -> None:
        # A path may contain bytes that are not UTF-8, which the protocol cannot carry.
        cause = cause.encode("utf-8", "backslashreplace").decode()
        self.cause = cause if cause[-1:] in ".?!" else f"{cause}."
        self.advice = advice.encode("utf-8", "backslashreplace").decode()
        self.code = code
        between = "" if advice.startswith("\n") else " "
        super().__init__(f"{self.cause}{between}{self.advice}".rstrip())

    @property
    def answer_lost(self) -> bool:
        """Whether Proxmox may have carried out the request nevertheless."""
        return self.code in OUTCOME_UNKNOWN
