"""Compare texts that no recording shows with the files of tests/answers/texts.

The model and the administrator read exactly these texts, so review the files.
UPDATE_ANSWERS=1 rewrites them; review the diff.
"""

import os
from collections.abc import Mapping
from pathlib import Path

TEXTS = Path(__file__).parent / "answers" / "texts"


def compare(name: str, texts: Mapping[str, str]) -> None:
    """Compare the texts of all cases with the golden file."""
    text = "\n".join(f"# {case}\n{case_text}\n" for case, case_text in texts.items())
    path = TEXTS / f"{name}.txt"
    if os.environ.get("UPDATE_ANSWERS"):
        path.write_text(text)
    assert text == path.read_text()
