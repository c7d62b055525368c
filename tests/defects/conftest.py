from __future__ import annotations

import pytest
from flawed import write_flawed

from synthaug.defects import Bank
from synthaug.defects.bank_run import bank as make_bank


@pytest.fixture(scope="session")
def small_bank(tmp_path_factory):
    """Five flaws."""
    folder = tmp_path_factory.mktemp("bank")
    make_bank(out=folder / "bank", photos=write_flawed(folder / "photos", 5), defect="stain", group="-1")
    return Bank(folder / "bank")
