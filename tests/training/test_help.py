import resource
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_help_of_fit_lists_its_options_in_fifteen_seconds_of_cpu_and_loads_no_base():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    looked = "import sys, synthaug.cli, synthaug.models.load as load\nload.load_base = None\nsynthaug.cli.main(['fit', '--help'])"

    ended = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=False, timeout=300)

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert ended.returncode == 0, ended.stderr
    assert "--patience" in ended.stdout
    assert "--data.held_out" in ended.stdout
    assert seconds < 15
