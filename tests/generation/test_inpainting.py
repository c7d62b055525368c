from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_photo
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image

from synthaug import Request, Sampler
from synthaug.errors import SettingError, UnusableFileError
from synthaug.generation.inpainting import Paste, composite, region_of, softened, surroundings
from synthaug.generation.schedulers import SAMPLERS, make_scheduler
from synthaug.generation.starts import jobs_of
from synthaug.pixels import read_image

SIZE = (48, 64)


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


@pytest.fixture(scope="module")
def inpainter(tiny_inpaint_base):
    return Sampler(str(tiny_inpaint_base))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A photo, its mask, and their files."""
    folder = tmp_path_factory.mktemp("masked")
    make_photo(SIZE, seed=1).save(folder / "photo.png")
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[16:32, 24:48] = 1
    Image.fromarray(mask.numpy() * 255).save(folder / "mask.png")
    return read_image(folder / "photo.png"), mask, str(folder / "photo.png"), str(folder / "mask.png")


def request(**fields):
    return Request(**{"prompt": "a photo of a fish", "seed": 7, "steps": 4, "size": SIZE, "mask_blur": 0, **fields})


def draw(worker, photos, **fields):
    return worker([request(**fields)], photos[0][None], photos[1][None])[0]


@pytest.mark.parametrize("blur", [0, 2])
@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("base", ["sampler", "inpainter"])
def test_outside_the_blurred_mask_every_pixel_is_the_photos(request: pytest.FixtureRequest, photos, base, only_masked, blur):
    photo, mask = photos[:2]
    drawn = draw(request.getfixturevalue(base), photos, mask_blur=blur, only_masked=only_masked, mask_padding=4)

    reach = int(2.5 * blur + 0.5)
    around = torch.zeros(SIZE, dtype=torch.bool)
    around[16 - reach : 32 + reach, 24 - reach : 48 + reach] = True
    changed = (drawn != photo).any(0)
    assert not (changed & ~around).any()
    assert float(changed[mask.bool()].float().mean()) > 0.9
    if blur:
        assert (changed & ~mask.bool()).any(), "the edge is soft"


def test_the_mask_goes_soft_as_a_gaussian_of_its_window():
    mask = torch.zeros(41, 43, dtype=torch.uint8)
    mask[20, 21] = 1
    x = np.arange(-8, 9)
    bell = np.exp(-0.5 * (x / 3.0) ** 2)
    wanted = np.zeros((41, 43))
    wanted[12:29, 13:30] = np.outer(bell, bell) / bell.sum() ** 2

    assert np.abs(softened(mask, 3).numpy() - wanted).max() < 1e-6
    assert softened(torch.ones(5, 7, dtype=torch.uint8), 64).min() > 0.999


@pytest.mark.parametrize(
    ("rows", "columns", "padding", "box"),
    [
        ((10, 14), (10, 14), 3, (7, 17, 6, 19)),  # grown to 3 : 4 on both sides
        ((0, 4), (60, 64), 0, (0, 4, 59, 64)),  # pushed back from the edge
        ((0, 48), (10, 12), 5, (0, 48, 0, 64)),  # everything
    ],
)
def test_what_is_drawn_by_itself_has_the_proportions_of_the_whole(rows, columns, padding, box):
    marked = torch.zeros(SIZE, dtype=torch.bool)
    marked[slice(*rows), slice(*columns)] = True

    top, left, bottom, right = surroundings(marked, padding=padding)

    assert (top, bottom, left, right) == box


def test_only_masked_shows_the_network_the_surroundings_enlarged(photos):
    region = region_of(*photos[:2], request(only_masked=True, mask_padding=4))

    top, left, bottom, right = region.paste.box
    assert (top, bottom) == (12, 36)
    assert (left, right) == (20, 52)
    cut = Image.fromarray(photos[0][:, 12:36, 20:52].permute(1, 2, 0).numpy()).resize((64, 48), Image.Resampling.LANCZOS)
    assert torch.equal(region.photo, torch.from_numpy(np.array(cut)).permute(2, 0, 1))
    assert region.cover[8:40, 8:56].min() > 0.4
    assert region.cover[:7].max() == 0


def test_a_part_goes_back_to_where_it_came_from(photos):
    photo, mask, *_ = photos
    region = region_of(photo, mask, request(only_masked=True, mask_padding=4))

    back = composite(region.photo, region.paste)

    assert torch.equal(back * (1 - mask), photo * (1 - mask))
    assert float((back.float() - photo.float()).abs().mean()) < 2, "enlarged and made smaller again"


def test_a_soft_edge_mixes_photo_and_drawing():
    photo, drawn = torch.full((3, 4, 4), 100, dtype=torch.uint8), torch.full((3, 4, 4), 200, dtype=torch.uint8)
    cover = torch.tensor([0.0, 0.25, 0.5, 1.0]).expand(4, 4)

    mixed = composite(drawn, Paste(photo=photo, cover=cover, box=(0, 0, 4, 4)))

    assert mixed[0, 0].tolist() == [100, 125, 150, 200]


@pytest.mark.parametrize("content", ["fill", "original", "latent noise", "latent nothing"])
def test_the_masked_place_begins_as_it_is_said(sampler, photos, content):
    (job,) = jobs_of([request(masked_content=content, strength=0.5)], sampler.networks, photos[0][None], photos[1][None])
    whole = sampler.networks.encode(photos[0][None].float() / 127.5 - 1)[0]
    inside = job.redraw.bool().expand_as(whole)

    wanted = {"original": whole, "latent noise": job.noise, "latent nothing": torch.zeros_like(whole)}.get(content)
    assert job.redraw.unique().tolist() == [0, 1]
    assert torch.equal(job.redraw[0].nonzero().aminmax(dim=0)[0], torch.tensor([2, 3]))
    if wanted is not None:
        assert torch.equal(job.start[inside], wanted[inside])
        assert torch.equal(job.start[~inside], whole[~inside])
    else:
        assert (job.start[inside] - whole[inside]).abs().max() > 1e-3


def test_fill_takes_the_colours_around_the_mask(sampler, monkeypatch, photos):
    seen = []
    encode = sampler.networks.encode
    monkeypatch.setattr(sampler.networks, "encode", lambda pixels: seen.append(pixels) or encode(pixels))
    photo = torch.zeros(3, *SIZE, dtype=torch.uint8)
    photo[0], photo[2, :, 36:] = 200, 120
    spoilt = torch.where(photos[1].bool(), torch.tensor(9, dtype=torch.uint8), photo)

    jobs_of([request(masked_content="fill")], sampler.networks, spoilt[None], photos[1][None])

    filled = (seen[0][0] + 1) * 127.5
    assert torch.allclose(filled[0], torch.full(SIZE, 200.0), atol=1)
    assert float(filled[2, 16:32, 25:30].mean()) < 45 < 75 < float(filled[2, 16:32, 42:47].mean())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_is_not_redrawn_is_at_the_noise_level_of_its_step(sampler, photos, monkeypatch, name, strength):
    """Every step shows the UNet the photo outside the mask as noised as its time step says, and the last one leaves it clean."""
    shown, last = [], []
    predict = sampler.networks.predict
    monkeypatch.setattr(sampler.networks, "predict", lambda z, t, *rest: shown.append((z, t)) or predict(z, t, *rest))
    monkeypatch.setattr(
        "synthaug.generation.finishing.decode_latents", lambda _, z, **_rest: last.append(z) or torch.zeros(len(z), 3, *SIZE)
    )
    asked = request(sampler=name, steps=8, strength=strength, guidance=1.0)

    sampler([asked], photos[0][None], photos[1][None])

    (job,) = jobs_of([asked], sampler.networks, photos[0][None], photos[1][None])
    outside = ~job.redraw.bool().expand_as(job.start)
    signal = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    for z, t in shown[1:]:
        share = np.interp(float(t), np.arange(1000), signal.numpy())
        level = float(z[0][outside] @ job.noise[outside] / job.noise[outside].square().sum())
        assert abs(level - (1 - share) ** 0.5) < 0.06, f"at time step {float(t):.0f}"
    assert torch.equal(last[0][0][outside], job.start[outside])


@pytest.mark.parametrize("name", ["DDIM", "DPM++ 2M", "Euler"])
def test_diffusers_draws_the_same_inside_the_mask_with_an_inpainting_base(inpainter, tiny_inpaint_base, photos, name):
    pipe = StableDiffusionInpaintPipeline.from_pretrained(tiny_inpaint_base, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler(name, pipe.scheduler.config)
    posterior = pipe.vae.encode
    pipe.vae.encode = lambda x: _Mode(posterior(x))
    pick = [Image.fromarray(photos[0].permute(1, 2, 0).numpy()), Image.fromarray(photos[1].numpy() * 255)]

    ours = draw(inpainter, photos, sampler=name, steps=5, guidance=3.0, negative_prompt="a screw")
    theirs = pipe(
        prompt="a photo of a fish", negative_prompt="a screw", image=pick[0], mask_image=pick[1], num_inference_steps=5, guidance_scale=3.0,
        strength=1.0, height=48, width=64, generator=torch.Generator().manual_seed(7), output_type="pt",
    ).images[0]  # fmt: skip

    inside = photos[1].bool()
    theirs = (theirs * 255).round().int()
    assert (theirs - ours.int())[:, inside].abs().max() <= 2
    assert (theirs - photos[0].int())[:, inside].abs().max() > 20, "or the test shows nothing"


class _Mode:
    """What an encoder says, without the draw: diffusers draws from it, we take its mean."""

    def __init__(self, said):
        self.latent_dist = self
        self._mean = said.latent_dist.mean

    def sample(self, generator):  # noqa: ARG002  # as diffusers calls it
        return self._mean


def test_an_inpainting_base_looks_at_the_photo_around_the_mask_and_not_below_it(inpainter, photos):
    photo, mask, *_ = photos
    below = torch.where(mask.bool(), 255 - photo, photo)
    around = torch.where(mask.bool(), photo, 255 - photo)

    images = [inpainter([request()], picture[None], mask[None])[0] * mask for picture in (photo, below, around)]

    assert torch.equal(images[0], images[1])
    assert (images[0].int() - images[2].int()).abs().max() > 3


def test_photo_and_mask_are_read_from_the_request_or_handed_over(sampler, photos):
    photo, mask, photo_file, mask_file = photos
    asked = request(image=photo_file, mask=mask_file, strength=0.7, mask_blur=3)

    images = [
        sampler([asked]),
        sampler([asked], photo[None], mask[None]),
        sampler([replace(asked, mask=None, image=None)], photo[None], mask[None]),
        sampler([replace(asked, mask=None)], None, mask[None]),
    ]

    assert all(torch.equal(image, images[0]) for image in images)


def test_a_photo_of_another_size_is_framed_together_with_its_mask(sampler, photos):
    """A mask twice as large as what is drawn marks the same place."""
    large = [stack.repeat_interleave(2, -1).repeat_interleave(2, -2)[None] for stack in photos[:2]]

    drawn = sampler([request()], *large)[0]

    outside = photos[1] == 0
    framed = jobs_of([request()], sampler.networks, *large)[0].paste.photo
    assert torch.equal(drawn[:, outside], framed[:, outside])
    assert (drawn[:, ~outside] != framed[:, ~outside]).float().mean() > 0.8


def test_a_photo_that_lies_on_its_side_is_redrawn_upright(sampler, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(photos[0].permute(1, 2, 0).numpy())
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)

    drawn = sampler([request(image=str(tmp_path / "lying.png"), mask=photos[3])])

    assert torch.equal(drawn, sampler([request(image=photos[2], mask=photos[3])]))


def test_masks_that_cannot_be_used_are_refused_in_a_sentence(sampler, inpainter, photos, tmp_path):
    photo, mask, photo_file, mask_file = photos
    Image.new("L", (64, 40), 255).save(tmp_path / "low.png")
    Image.new("L", (64, 48), 0).save(tmp_path / "empty.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    dot = torch.zeros_like(mask)
    dot[3, 5] = 1

    low, empty, torn = (str(tmp_path / f"{name}.png") for name in ("low", "empty", "torn"))
    from_file, bare = request(image=photo_file), request()
    refused = [
        (r"low.png is \(40, 64\) and .*photo.png \(48, 64\)", sampler, [replace(from_file, mask=low)], ()),
        (r"the masks are \(40, 64\) and the photos \(48, 64\)", sampler, [bare], (photo[None], mask[None, :40])),
        (r"empty.png marks nothing of the photo as it is framed to \(48, 64\); paint", sampler, [replace(from_file, mask=empty)], ()),
        (r"it marks nothing of the photo", sampler, [bare], (photo[None], 0 * mask[None])),
        (r"must cover half of a square of 8 pixels .* take less mask_blur, or only_masked", sampler, [bare], (photo[None], dot[None])),
        (r"a mask needs a photo: hand images over", sampler, [bare], (None, mask[None])),
        (r"masks must be \(N, H, W\), one for each of 2 .* got \(1, 48, 64\)", sampler, [bare] * 2, (photo.repeat(2, 1, 1, 1), mask[None])),
        (r"images must be \(N, 3, H, W\), one for each of 1 requests, got \(3, 48, 64\)", sampler, [bare], (photo,)),
        (r"images must be uint8, got torch.float32", sampler, [bare], (photo[None].float(),)),
        (r"inpaint fills a mask in .*, and no mask is given; give image and mask", inpainter, [bare], (photo[None],)),
        (r"torn.png is", sampler, [request(image=torn, mask=mask_file)], ()),
    ]

    for said, worker, asked, given in refused:
        with pytest.raises((SettingError, UnusableFileError), match=said):
            worker(asked, *given)


def test_a_dot_is_redrawn_when_its_surroundings_are_enlarged(sampler, photos):
    dot = torch.zeros_like(photos[1])
    dot[3, 5] = 1

    drawn = sampler([request(only_masked=True, mask_padding=1)], photos[0][None], dot[None])[0]

    assert (drawn != photos[0]).any(0).sum() == 1


def test_at_a_strength_of_1_what_the_masked_place_begins_with_makes_no_difference_but_for_the_edge_that_a_fill_leaves(
    sampler, inpainter, photos
):
    contents = ["original", "latent noise", "latent nothing", "fill"]

    plain, shown = ([draw(worker, photos, strength=1.0, masked_content=content) for content in contents] for worker in (sampler, inpainter))

    assert all(torch.equal(picture, plain[0]) for picture in plain[1:3])
    assert not torch.equal(plain[3], plain[0])
    assert all(torch.equal(picture, shown[0]) for picture in shown)
