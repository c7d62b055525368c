import resource
import subprocess
import sys

import pytest

from synthaug.training.command import FitCLI


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


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_a_base_need_not_be_named(tmp_path, photo_folder):
    argv = ["--data.photos", str(photo_folder(5)), "--out", str(tmp_path / "a.safetensors"), "--trainer.max_steps", "5"]

    assert FitCLI(argv).config.model.base == "pocket"
