from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from conftest import make_photo
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from safetensors.torch import save_file

from synthaug import Request, Sampler
from synthaug.errors import SettingError, UnusableFileError, WrongBaseModelError
from synthaug.generation.control import DiffusersControlNet
from synthaug.generation.schedulers import make_scheduler
from synthaug.models.load import load_base
from synthaug.pixels import read_image
from synthaug.records import ControlUse, Hires

SHIPPED = "synthaug.generation.control.DiffusersControlNet"


@pytest.fixture(scope="module")
def sampler(tiny_base):
    return Sampler(str(tiny_base))


@pytest.fixture(scope="module")
def nets(tiny_base, tmp_path_factory):
    """Two ControlNets that steer, as if they had been trained, and a picture for each."""
    folder = tmp_path_factory.mktemp("control")
    unet = load_base(str(tiny_base), parts=("unet",)).unet
    for seed, name in enumerate(("edges", "depth")):
        torch.manual_seed(seed)
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        for weight in net.controlnet_cond_embedding.parameters():  # so that its picture shows
            torch.nn.init.normal_(weight, std=0.3)
        torch.nn.init.normal_(net.controlnet_mid_block.weight, std=3.0)  # so that the middle does, too
        net.save_pretrained(folder / name)
        make_photo((32, 40), seed=seed).save(folder / f"{name}.png")
    return folder


def use(nets, name="edges", **fields):
    return ControlUse(**{"class_path": SHIPPED, "settings": {"path": str(nets / name)}, "image": str(nets / f"{name}.png"), **fields})


def request(*controls, **fields):
    return Request(
        **{"prompt": "a photo of a fish", "seed": 7, "steps": 4, "size": (32, 40), "sampler": "DDIM", "controls": controls, **fields}
    )


def apart(a, b):
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("names", [("edges",), ("edges", "depth")])
def test_diffusers_draws_the_same_with_the_same_controls(sampler, tiny_base, nets, names):
    uses = [
        use(nets, name, weight=weight, interval=(begin, 0.75)) for name, weight, begin in zip(names, (0.8, 0.5), (0.0, 0.25), strict=False)
    ]
    found = [ControlNetModel.from_pretrained(nets / name) for name in names]
    pipe = StableDiffusionControlNetPipeline.from_pretrained(
        tiny_base, controlnet=found if len(found) > 1 else found[0], safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("DDIM", pipe.scheduler.config)
    pictures = [Image.fromarray(read_image(nets / f"{name}.png").permute(1, 2, 0).numpy()) for name in names]
    settings = {
        "image": pictures, "controlnet_conditioning_scale": [one.weight for one in uses],
        "control_guidance_start": [one.interval[0] for one in uses], "control_guidance_end": [0.75] * len(uses),
    }  # fmt: skip

    ours = sampler([request(*uses, guidance=3.0, negative_prompt="a screw")])[0]
    theirs = pipe(
        prompt="a photo of a fish", negative_prompt="a screw", num_inference_steps=4, guidance_scale=3.0, height=32, width=40,
        generator=torch.Generator().manual_seed(7), output_type="pt",
        **(settings if len(uses) > 1 else {key: value[0] for key, value in settings.items()}),
    ).images[0]  # fmt: skip

    assert apart((theirs * 255).round(), ours) <= 2
    assert apart(sampler([request(guidance=3.0, negative_prompt="a screw")])[0], ours) > 20, "the control must show"


def test_weight_interval_picture_and_company_show_and_disturb_nobody(sampler, nets):
    wanted = [
        request(),
        request(use(nets)),
        request(use(nets, weight=0.4)),
        request(use(nets, image=str(nets / "depth.png"))),
        request(use(nets, interval=(0.5, 1.0))),
        request(use(nets), use(nets, "depth")),
        request(use(nets), size=(24, 32), hires=Hires(scale=1.4, strength=0.5)),
    ]

    together = sampler(wanted)
    alone = [sampler([asked])[0] for asked in wanted]

    assert max(apart(image, other) for image, other in zip(together, alone, strict=True)) <= 1
    assert all(apart(alone[a], alone[b]) > 3 for a in range(len(alone)) for b in range(a))


def test_a_control_of_no_weight_steers_nothing(sampler, nets):
    assert torch.equal(sampler([request(use(nets, weight=0.0))]), sampler([request()]))


def test_a_control_without_a_picture_looks_at_the_photo(sampler, nets):
    photo = str(nets / "depth.png")
    asked = request(use(nets, image=None), image=photo, strength=0.6)

    assert torch.equal(sampler([asked]), sampler([replace(asked, controls=(use(nets, image=photo),))]))


def test_a_control_sees_the_part_that_is_drawn_by_itself(sampler, nets):
    mask = torch.zeros(1, 32, 40, dtype=torch.uint8)
    mask[:, 10:20, 12:24] = 1
    photo = read_image(nets / "edges.png")[None]
    fields = {"only_masked": True, "mask_padding": 2, "strength": 0.8, "mask_blur": 0}

    images = [sampler([request(use(nets, image=image), **fields)], photo, mask) for image in (None, str(nets / "edges.png"))]

    assert torch.equal(*images)
    assert apart(images[0], sampler([request(**fields)], photo, mask)) > 3


class Counted(DiffusersControlNet):
    built = 0

    def __init__(self, path: str) -> None:
        super().__init__(path)
        type(self).built += 1


class Halfway:
    """Lacks what a control must have."""


def test_a_network_is_built_once_for_a_sampler_and_left_behind_when_it_travels(tiny_base, nets, monkeypatch):
    monkeypatch.setattr("synthaug.generation.control.DiffusersControlNet", Counted)
    sampler = Sampler(str(tiny_base))
    wanted = [request(use(nets, weight=weight)) for weight in (1.0, 0.5)]

    images = [sampler(wanted), sampler(wanted)]

    assert Counted.built == 1
    assert len(pickle.dumps(sampler)) < 2000
    assert torch.equal(*images)


def test_a_network_in_one_file_is_read_with_the_configuration_beside_it(sampler, nets, tmp_path):
    net = ControlNetModel.from_pretrained(nets / "edges")
    net.save_config(tmp_path)
    save_file(net.state_dict(), tmp_path / "edges.safetensors")

    images = [sampler([request(use(nets, settings={"path": str(path)}))]) for path in (nets / "edges", tmp_path / "edges.safetensors")]

    assert torch.equal(*images)


def test_controls_that_cannot_be_used_are_refused_in_a_sentence(sampler, nets, tmp_path, monkeypatch):
    monkeypatch.setattr("synthaug.generation.control.Halfway", Halfway, raising=False)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    (tmp_path / "config.json").write_text((nets / "edges" / "config.json").read_text())
    wider = {**ControlNetModel.load_config(nets / "edges"), "block_out_channels": (8, 24)}
    ControlNetModel.from_config(wider).save_pretrained(tmp_path / "other")
    ours = "synthaug.generation.control"
    refused = [
        ({"class_path": f"{ours}.Nothing"}, SettingError, r"can be imported, got .*no attribute 'Nothing'.*shipped is synthaug"),
        ({"class_path": "nowhere.Net"}, SettingError, r"got 'nowhere.Net' \(No module named 'nowhere'\)"),
        ({"class_path": "Net"}, SettingError, r"got 'Net' \(Empty module name\)"),
        ({"class_path": "synthaug.pixels.framed"}, SettingError, r"must name a class, 'synthaug.pixels.framed' is a function"),
        ({"class_path": f"{ours}.Halfway", "settings": {}}, SettingError, r"must have check, to and __call__ .*Halfway lacks"),
        ({"settings": {"folder": "x"}}, SettingError, r"settings of .*ControlNet must be its arguments, got \{'folder': 'x'\}"),
        ({"settings": {"path": str(tmp_path / "none")}}, UnusableFileError, r"there is no ControlNet .*none; give a folder"),
        ({"settings": {"path": str(tmp_path / "torn.safetensors")}}, UnusableFileError, r"torn.safetensors cannot be read as a ControlNet"),
        ({"settings": {"path": str(tmp_path / "other")}}, WrongBaseModelError, r"block_out_channels is .*24.*, that of .*tiny is .*16"),
        ({"image": None}, SettingError, r"a control needs a picture to look at, .* has none for request 0; give its image"),
        ({"image": str(tmp_path / "none.png")}, UnusableFileError, r"there is no file .*none.png"),
    ]

    for fields, kind, said in refused:
        with pytest.raises(kind, match=said):
            sampler([request(use(nets, **fields))])
