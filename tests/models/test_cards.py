from __future__ import annotations

import pytest

from synthaug.errors import SettingError
from synthaug.models.cards import CARDS, builds_for, card_of, memory_size


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8192), ("8 GB", 8192), ("8g", 8192), ("7.5GiB", 7680), ("6000MiB", 6000), ("512 mb", 512)]
)
def test_a_size_is_read_with_its_unit(text, size):
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "8", "eight", "-8GiB", "8TiB", "0GiB", "8GiB of it", "GiB"])
def test_what_is_no_size_is_refused_with_what_was_given(text):
    with pytest.raises(SettingError, match="must be a number and a unit, such as 8GiB or 7500MiB, got"):
        memory_size(text)


@pytest.mark.parametrize("name", ["GTX 1080", "gtx1080", "1080", "NVIDIA GeForce GTX 1080"])
def test_a_card_is_known_by_whatever_name_it_goes(name):
    assert card_of(name).name == "GTX 1080"


def test_every_card_is_found_by_its_own_name():
    assert all(card_of(name) is card for name, card in CARDS.items())


def test_an_unknown_card_is_refused_with_those_that_are_known():
    with pytest.raises(SettingError, match=r"unknown card 'GTX 9999'; give its memory with --vram, .* GTX 1080, "):
        card_of("GTX 9999")


@pytest.mark.parametrize(
    ("name", "halves", "build"),
    [
        ("GTX 1080", "stores halves, computes in fp32", "cu126"),
        ("V100", "computes in fp16", "cu126"),
        ("GTX 1660", "answers NaN in fp16, computes in fp32", None),
        ("T4", "computes in fp16", None),
        ("RTX 3060", "computes in bf16", None),
        ("RTX 5090", "computes in bf16", "12.8 or later"),
    ],
)
def test_a_card_is_known_by_what_it_computes_in_and_which_build_serves_it(name, halves, build):
    card = card_of(name)

    said = builds_for(card.capability)

    assert card.halves == halves
    assert said is None if build is None else build in said
