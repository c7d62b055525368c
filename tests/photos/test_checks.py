from __future__ import annotations

from dataclasses import replace

import torch
from conftest import make_photo
from pictures import as_tensor
from PIL import ImageFilter

from synthaug.photos.checks import Look, look_at, remarks

FINE = Look(name="fine.jpg", shape=(100, 100), light=0.5, sharpness=0.1, sha256="00")


def test_good_photos_give_no_remark():
    looks = [look_at(f"{i}.jpg", as_tensor(make_photo(seed=i)), (24, 32), sha256=str(i)) for i in range(6)]

    assert list(remarks(looks, (24, 32))) == []


def test_each_trouble_is_named_once_with_its_photos():
    looks = [
        FINE,
        replace(FINE, name="small.jpg", shape=(100, 20), sha256="01"),
        replace(FINE, name="night.jpg", light=0.05, sha256="02"),
        replace(FINE, name="flash.jpg", light=0.99, sha256="03"),
        replace(FINE, name="blur.jpg", sharpness=0.02, sha256="04"),
        replace(FINE, name="twin.jpg"),
        replace(FINE, name="lost.jpg", defect=0.0, sha256="05"),
        replace(FINE, name="found.jpg", defect=0.01, sha256="06"),
    ]

    assert list(remarks(looks, (64, 64))) == [
        "1 photo is smaller than 64 x 64 and was magnified: small.jpg",
        "1 photo is almost black: night.jpg",
        "1 photo is almost white: flash.jpg",
        "1 photo is much less sharp than the others: blur.jpg",
        "1 photo is without any defect in its mask at this size: lost.jpg",
        "1 photo is the same as another one: twin.jpg = fine.jpg",
    ]


def test_many_names_are_cut_short_and_counted():
    looks = [replace(FINE, name=f"{i}.jpg", shape=(9, 9), sha256=str(i)) for i in range(8)]

    assert list(remarks(looks, (16, 16))) == [
        "8 photos are smaller than 16 x 16 and were magnified: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 3 more"
    ]


def test_a_blurred_photo_is_told_from_sharp_ones():
    pictures = [make_photo(seed=i) for i in range(5)] + [make_photo(seed=5).filter(ImageFilter.GaussianBlur(8))]
    looks = [look_at(f"{i}.jpg", as_tensor(picture), (48, 64), sha256=str(i)) for i, picture in enumerate(pictures)]

    assert [remark for remark in remarks(looks, (48, 64)) if "sharp" in remark] == ["1 photo is much less sharp than the others: 5.jpg"]


def test_lightness_is_that_of_the_pixels():
    grey = torch.full((3, 20, 30), 102, dtype=torch.uint8)

    look = look_at("a", grey, (8, 8), sha256="0")

    assert abs(look.light - 0.4) < 1e-3
    assert look.sharpness < 1e-6
    assert look.shape == (20, 30)
