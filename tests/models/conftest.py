from __future__ import annotations

import pytest
from checkpoints import shrunken


@pytest.fixture(scope="session")
def sd1(tmp_path_factory):
    """A base and the folder with its tokenizer."""
    folder = tmp_path_factory.mktemp("sd1")
    return shrunken("sd1", folder), folder
