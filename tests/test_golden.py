"""Check that a test compares each golden text."""

import re

from tests.golden import TEXTS


def test_every_golden_text_is_compared_by_a_test() -> None:
    tests = "".join(path.read_text() for path in TEXTS.parents[1].rglob("test_*.py"))
    compared = re.findall(r'\bcompare\(\s*"([\w-]+)"', tests)
    assert sorted(path.stem for path in TEXTS.iterdir()) == sorted(compared)
