"""Texts that no recording shows: each file of tests/answers/texts has a test's texts.

Read those files: the model and the administrator read the same. UPDATE_ANSWERS=1 writes
them anew; what has changed then is for a person to read.
"""

import os
from collections.abc import Mapping
from pathlib import Path

TEXTS = Path(__file__).parent / "answers" / "texts"


def compare(name: str, texts: Mapping[str, str]) -> None:
    """Compare the text of each case with the golden file, as a whole."""
    text = "\n".join(f"# {case}\n{found}\n" for case, found in texts.items())
    path = TEXTS / f"{name}.txt"
    if os.environ.get("UPDATE_ANSWERS"):
        path.write_text(text)
    assert text == path.read_text()
