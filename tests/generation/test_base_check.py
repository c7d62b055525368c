from __future__ import annotations

import pytest
from checkpoints import cut_off
from conftest import make_tiny_base

from synthaug import Plan, Request, Sampler
from synthaug.errors import SettingError
from synthaug.generation.base_check import check_base
from synthaug.models.ldm import write_ldm
from synthaug.models.load import load_base

REFUSED = [
    ("tiny_sdxl_base", r"drawn with SD 1.x and SD 2.x, .*sdxl is SDXL"),
    ("tiny_inpaint_base", r".*inpaint fills a mask in and draws nothing else, and no mask is given; give image and mask"),
]


@pytest.mark.parametrize(("base", "said"), REFUSED)
def test_a_base_that_cannot_be_drawn_with_is_refused_before_anything_is_drawn(request, base, said):
    with pytest.raises(SettingError, match=said):
        check_base(Plan(base=str(request.getfixturevalue(base)), prompts=("a fish",)))


@pytest.mark.parametrize(("base", "said"), REFUSED)
def test_the_sampler_refuses_a_base_that_it_cannot_draw_with(request, base, said):
    sampler = Sampler(str(request.getfixturevalue(base)))

    with pytest.raises(SettingError, match=said):
        sampler([Request(prompt="a fish", seed=1, steps=2, size=(32, 32))])


def test_a_base_draws_the_same_from_one_file_as_from_its_folder(tmp_path, monkeypatch):
    make_tiny_base(tmp_path / "folder", seed=5)
    base = load_base(str(tmp_path / "folder"))
    write_ldm(base, tmp_path / "base.safetensors")
    base.tokenizer.save_pretrained(tmp_path / "tokenizer")
    cut_off(monkeypatch)
    request = Request(prompt="a photo of a fish", seed=1, steps=3, size=(32, 40))

    drawn = [Sampler(str(tmp_path / name))([request]) for name in ("folder", "base.safetensors")]

    assert drawn[0].equal(drawn[1])
