from __future__ import annotations

import pytest
import torch
from checkers import check_transform
from conftest import make_photo
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug import SyntheticVariation
from synthaug.errors import SettingError, WrongBaseModelError
from synthaug.generation import Sampler


@pytest.fixture
def variation(tiny_lora):
    """Makes one that is quick."""

    def make(**settings):
        return SyntheticVariation(tiny_lora, **{"steps": 4, "p": 1.0, **settings})

    return make


def photo(size=(37, 61)):
    return tv_tensors.Image(v2.functional.pil_to_tensor(make_photo(size)))


def seeded(transform, sample, seed=0):
    torch.manual_seed(seed)
    return transform(sample)


def test_it_keeps_what_every_transform_promises(variation):
    check_transform(variation(), variation(p=0.0))


def test_other_seeds_give_other_variations_of_the_same_photo(variation):
    redraw = variation()

    first, second, third = (seeded(redraw, photo(), seed) for seed in (1, 2, 1))

    assert not torch.equal(first, second)
    assert torch.equal(first, third)


def distance(first, second):
    return float((first - second).abs().mean())


def test_less_strength_stays_closer_to_the_photo(variation):
    image = photo((32, 32))

    def redrawn(strength):
        return seeded(variation(strength=strength, steps=20), image).float()

    only_through_the_autoencoder, little, much = redrawn(0.001), redrawn(0.1), redrawn(1.0)

    assert 0 < distance(little, only_through_the_autoencoder) < distance(much, only_through_the_autoencoder)


def test_strength_can_be_drawn_from_a_range(variation):
    redraw = variation(strength=(0.25, 0.75))

    drawn = [redraw.make_params([photo()])["strengths"][0] for _ in range(50)]

    assert 0.25 <= min(drawn) < 0.4
    assert 0.6 < max(drawn) <= 0.75


def test_about_a_share_of_p_is_changed(variation):
    redraw = variation(p=0.25)
    torch.manual_seed(0)

    changed = sum(redraw.make_params([photo()])["seed"] is not None for _ in range(400))

    assert 70 < changed < 130


@pytest.mark.parametrize("shape", [(2, 3, 16, 24), (1, 19, 23), (2, 2, 1, 16, 16)])
def test_batches_and_grey_images_keep_their_shape(variation, shape):
    image = torch.rand(shape)

    out = variation()(image)

    assert out.shape == shape
    assert out.dtype == torch.float32
    assert 0 <= out.min() < out.max() <= 1


def test_images_of_a_batch_are_redrawn_each_with_noise_of_its_own(variation):
    image = photo((32, 32)).as_subclass(torch.Tensor)

    first, second = variation(strength=1.0)(torch.stack([image, image]))

    assert not torch.equal(first, second)


def test_a_grey_picture_stays_grey(variation):
    assert variation()(make_photo((20, 30)).convert("L")).mode == "L"


def test_photos_are_redrawn_whole_in_their_own_shape(variation, monkeypatch):
    seen = []

    class Watched(Sampler):
        def __call__(self, requests, images=None):
            seen.append((requests[0].size, tuple(images.shape)))
            return super().__call__(requests, images)

    monkeypatch.setattr("synthaug.datasets.variation.Sampler", Watched)

    variation(size=(32, 32))(photo((60, 240)))

    assert seen == [((16, 64), (1, 3, 16, 64))]


MARKS = {
    "Mask": tv_tensors.Mask(torch.zeros(37, 61, dtype=torch.uint8)),
    "BoundingBoxes": tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 3, 4]]), format="XYXY", canvas_size=(37, 61)),
}


@pytest.mark.parametrize("kind", MARKS)
def test_marks_are_refused_unless_the_user_vouches_for_them(variation, kind):
    sample = {"image": photo(), "mark": MARKS[kind]}

    with pytest.raises(SettingError, match=f"a {kind} marks a place, .* strength 0.5 .* keeps_geometry=True"):
        variation()(sample)
    assert variation(keeps_geometry=True)(sample)["mark"] is MARKS[kind]


def test_a_video_is_refused(variation):
    with pytest.raises(SettingError, match="got a Video, whose frames would not fit"):
        variation()(tv_tensors.Video(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)))


@pytest.mark.parametrize("bad", [torch.zeros(4, 16, 16, dtype=torch.uint8), torch.zeros(16, 16, dtype=torch.uint8)])
def test_a_tensor_that_is_no_image_is_refused_with_its_shape(variation, bad):
    with pytest.raises(SettingError, match=r"must be \(..., C, H, W\) with C 1 or 3, got shape"):
        variation()(bad)


def test_a_picture_with_transparency_is_refused_with_the_way_out(variation):
    with pytest.raises(SettingError, match=r"got mode RGBA; convert it first"):
        variation()(Image.new("RGBA", (16, 16)))


@pytest.mark.parametrize("bad", [torch.full((3, 16, 16), 1.5), torch.randn(3, 16, 16), torch.full((3, 16, 16), torch.nan)])
def test_a_float_image_with_values_that_are_no_shades_is_refused(variation, bad):
    with pytest.raises(SettingError, match=r"a float image must be in \[0, 1\], got values from .*; redraw it before it is normalised"):
        variation()(bad)


def test_a_rounding_error_beyond_white_stays_white(variation):
    redraw, white = variation(), torch.ones(3, 16, 16)

    assert torch.equal(seeded(redraw, white + 0.0009), seeded(redraw, white))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("kind", [torch.Tensor, tv_tensors.Image])
def test_an_empty_batch_comes_back_empty(variation, per_image, kind):
    out = variation(per_image=per_image)(torch.zeros(0, 3, 16, 24, dtype=torch.uint8).as_subclass(kind))

    assert out.shape == (0, 3, 16, 24)
    assert type(out) is kind


def test_a_range_of_strength_may_be_a_list(variation):
    assert variation(strength=[0.25, 0.75]).strength == (0.25, 0.75)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strength": [0.2]}, r"strength must be in \(0, 1\], or \(low, high\) in this order, got \[0.2\]"),
        ({"strength": "half"}, r"strength must be in \(0, 1\], .* got 'half'"),
        ({"strength": (0.2, None)}, r"strength must be in \(0, 1\], .* got \(0.2, None\)"),
        ({"p": "1"}, r"p must be in \[0, 1\], got '1'"),
        ({"p": -0.1}, r"p must be in \[0, 1\], got -0.1"),
        ({"strength": 0}, r"strength must be in \(0, 1\], .* got 0; 0 would hand back"),
        ({"strength": (0.6, 0.4)}, r"got \(0.6, 0.4\)"),
        ({"prompt": ""}, "prompt must not be empty"),
    ],
)
def test_values_that_cannot_be_used_are_refused(variation, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        variation(**settings)


def test_another_base_is_refused(variation, other_base):
    with pytest.raises(WrongBaseModelError, match="was made for base"):
        variation(base=str(other_base))


@pytest.fixture
def calls(monkeypatch):
    """Requests of every call of the sampler."""
    seen = []

    class Watched(Sampler):
        def __call__(self, requests, images=None):
            seen.append(list(requests))
            return super().__call__(requests, images)

    monkeypatch.setattr("synthaug.datasets.variation.Sampler", Watched)
    return seen


def test_a_batch_is_redrawn_in_one_go_with_a_seed_per_image(variation, calls):
    variation()(torch.rand(5, 3, 16, 16))

    [requests] = calls
    assert len({request.seed for request in requests}) == 5
    assert len({request.strength for request in requests}) == 1


def test_per_image_decides_for_each_image_of_a_batch(variation, calls):
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    sample = {"label": torch.arange(12), "image": tv_tensors.Image(images)}

    out = seeded(variation(p=0.5, per_image=True, strength=(0.25, 1.0)), sample)

    same = [bool((a == b).all()) for a, b in zip(out["image"], images, strict=True)]
    [requests] = calls
    assert 2 < sum(same) < 10
    assert len(requests) == 12 - sum(same)
    assert len({request.strength for request in requests}) == len(requests)
    assert out["label"] is sample["label"]


def test_per_image_needs_batches_of_one_size(variation):
    sample = [tv_tensors.Image(torch.zeros(n, 3, 16, 16, dtype=torch.uint8)) for n in (2, 3)]

    with pytest.raises(SettingError, match=r"must be batches of one size, got 2 and 3"):
        variation(per_image=True)(sample)


def test_per_image_keeps_what_every_transform_promises(variation):
    check_transform(variation(per_image=True), variation(per_image=True, p=0.0))
