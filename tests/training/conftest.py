"""What every run of ``fit`` does anew and finds the same: here it is done once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def found_once() -> Iterator[None]:
    """The docstrings of the options' classes, and the speed of this machine."""
    from docstring_parser.attrdoc import AttributeDocstrings

    from synthaug.training import opening

    plain = AttributeDocstrings.get_attr_docs
    known = cache(lambda component: plain(AttributeDocstrings(), component))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AttributeDocstrings, "get_attr_docs", lambda _, component: known(component))
        patched.setattr(opening, "rate_of", cache(opening.rate_of))
        yield
