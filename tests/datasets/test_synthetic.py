from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest
import torch
from conftest import make_photo
from PIL import Image
from streams import PLAN, draw_seed
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug import Plan, Sampler, SyntheticDataset
from synthaug.datasets import MixedDataset, Pool
from synthaug.datasets.stream import RequestStream
from synthaug.errors import SettingError, UnusableFileError
from synthaug.records import ControlUse, Hires, LoraUse


@pytest.fixture
def quick(tiny_lora):
    """Makes a data set that is quick to draw."""

    def make(lora=tiny_lora, **settings):
        return SyntheticDataset(lora, **{"count": 4, "steps": 1, "target": "dict", "draw_batch": 2, **settings})

    return make


def seeds(dataset):
    return [target["seed"] for _, target in dataset]


def test_any_field_of_a_drawing_may_be_given(quick):
    plan = quick(sampler="Euler a", clip_skip=2, guidance_interval=(0.2, 0.8), prompt=["a screw", "a fish"]).stream.plan

    assert (plan.sampler, plan.clip_skip, plan.guidance_interval) == ("Euler a", 2, (0.2, 0.8))
    assert [plan.request(index).prompt for index in range(3)] == ["a screw", "a fish", "a screw"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clipskip": 2}, "unknown setting 'clipskip' of how to draw; did you mean clip_skip?"),
        ({"xyzzy": 2}, "unknown setting 'xyzzy' of how to draw; choose from: clip_skip, controls"),
        ({"loras": ()}, "LoRAs are the first argument, got loras="),
        ({"size": 64}, r"size must be \[height, width\], got 64"),
        ({"hires": 1.5}, "hires must be {scale: NUMBER, strength: NUMBER}, got 1.5"),
        ({"hires": {"zoom": 2}}, "hires must be {scale: NUMBER, strength: NUMBER}, got {'zoom': 2}"),
        ({"eta": 2.0}, "eta must be from 0 to 1, got 2.0"),
        ({"prompt": ["a fish", " "]}, "prompt must not be empty, got "),
        ({"transform": v2.Identity(), "transforms": v2.Identity()}, "got both; put one into the other"),
        ({"prefetch": -1}, "prefetch must be 0 or more, got -1"),
        ({"pool": Pool(keep=4)}, "leave count out, got 4"),
        ({"lora": []}, "at least one LoRA, got an empty list"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_drawn(quick, settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        quick(**settings)


def test_several_loras_are_worn_together_each_with_its_weight(quick, tiny_lora):
    both = quick([tiny_lora, LoraUse(path=str(tiny_lora), weight=-0.5)], lora_weight=0.5)
    neither = quick(tiny_lora, lora_weight=0.0)

    images = [torch.stack([image for image, _ in dataset]).int() for dataset in (both, neither, quick())]

    assert [use.weight for use in both.stream.plan.loras] == [0.5, -0.5]
    assert (images[0] - images[1]).abs().max() <= 1  # they cancel out
    assert (images[2] - images[1]).abs().max() > 1


def test_each_of_several_loras_is_looked_at(quick, tiny_lora, tmp_path):
    with pytest.raises(UnusableFileError, match=r"there is no LoRA file .*gone.safetensors"):
        quick([tiny_lora, tmp_path / "gone.safetensors"])


def test_transforms_are_given_image_and_target_together(quick):
    def relabelled(image, target):
        return image, {**target, "seen": tuple(image.shape)}

    [(image, target), *_] = quick(transforms=relabelled)
    [(cropped, plain), *_] = quick(transforms=v2.RandomCrop(16))

    assert target["seen"] == (3, 32, 32)
    assert isinstance(image, tv_tensors.Image)
    assert cropped.shape == (3, 16, 16)
    assert plain["prompt"] == "a photo of iriko"


def test_a_mask_is_handed_out_as_its_image_is_framed_and_changed_with_it(quick, tmp_path):
    make_photo((48, 32)).save(tmp_path / "photo.png")
    marked = torch.zeros(48, 32, dtype=torch.uint8)
    marked[:24, :16] = 255
    Image.fromarray(marked.numpy()).save(tmp_path / "mask.png")
    files = {"image": str(tmp_path / "photo.png"), "mask": str(tmp_path / "mask.png"), "mask_blur": 0, "count": 1}

    [(image, target)] = quick(**files)
    [(flipped, of_flipped)] = quick(**files, transforms=v2.RandomHorizontalFlip(p=1))
    [(_, label)] = quick(**files, target="label")

    expected = torch.zeros(32, 32, dtype=torch.uint8)  # of 48 rows the 32 in the middle
    expected[:16, :16] = 1
    assert isinstance(target["mask"], tv_tensors.Mask)
    assert torch.equal(target["mask"], expected)
    assert torch.equal(of_flipped["mask"], expected.flip(-1))
    assert torch.equal(flipped, image.flip(-1))
    assert label == 0


def test_settings_may_be_given_as_in_a_file(quick):
    use = ControlUse(class_path="some.Class")
    plan = quick(size=[48, 64], hires={"scale": 1.5}, guidance_interval=[0.2, 0.8], controls=[use]).stream.plan

    assert (plan.size, plan.hires, plan.guidance_interval, plan.controls) == ((48, 64), Hires(scale=1.5), (0.2, 0.8), (use,))
    assert quick(hires=Hires(scale=1.5)).stream.plan.hires == Hires(scale=1.5)


def test_a_cache_is_read_by_another_data_set_and_refused_to_another_plan(quick, tmp_path, monkeypatch):
    drawn = [image for image, _ in quick(cache=tmp_path)]
    monkeypatch.delattr(Sampler, "__call__")

    again = quick(cache=tmp_path)
    read = [image for image, _ in again]

    assert all(torch.equal(*pair) for pair in zip(drawn, read, strict=True))
    assert again.cache.counts.read == 4
    with pytest.raises(SettingError, match=f"{tmp_path} is the cache of another plan: steps is 1 there and 2 here"):
        quick(cache=tmp_path, steps=2)


def test_a_pool_in_a_cache_and_a_mixed_data_set_work_from_a_lora_file(quick, tmp_path):
    pooled = quick(count=None, pool=Pool(keep=4, refresh=0.25), cache=tmp_path)
    mixed = MixedDataset([("photo", {}), ("photo", {}), ("photo", {})], pooled, share=0.4)

    assert len(set(seeds(pooled)) & set(seeds(pooled))) == 3
    assert [image if isinstance(image, str) else "drawn" for image, _ in mixed].count("drawn") == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_training_loop_gets_batches(quick, workers):
    dataset = quick(target="label", label=1, transform=v2.ToDtype(torch.float32, scale=True))
    network = torch.nn.Linear(3 * 32 * 32, 2)

    losses = [
        torch.nn.functional.cross_entropy(network(images.flatten(1)), labels).item()
        for images, labels in DataLoader(dataset, batch_size=2, num_workers=workers)
    ]

    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")  # Lightning says so of every one
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_lightnings_trainer_is_fed(quick, workers, tmp_path):
    from lightning import LightningModule, Trainer

    class Detector(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3 * 32 * 32, 2)
            self.seen = []

        def training_step(self, batch, _):
            images, target = batch
            self.seen += target["seed"].tolist()
            return torch.nn.functional.cross_entropy(self.layer(images.flatten(1)), target["label"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    detector = Detector()
    dataset = quick(label=1, transform=v2.ToDtype(torch.float32, scale=True))
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip

    trainer.fit(detector, DataLoader(dataset, batch_size=2, num_workers=workers))

    assert len(set(detector.seen)) == 8
    assert trainer.global_step == 4


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 with torch 2.14
@pytest.mark.skipif(importlib.util.find_spec("torchdata") is None, reason="torchdata is not installed")
@pytest.mark.parametrize(
    ("workers", "taken"), [(0, 0), (0, 3), (0, 5), (0, 8), (2, 5), *(pytest.param(2, taken, marks=pytest.mark.slow) for taken in (0, 3, 8))]
)
@pytest.mark.parametrize("kind", ["stream", "pool", "mixed"])
def test_torchdatas_loader_resumes_exactly(kind, workers, taken, tmp_path):
    from torchdata.stateful_dataloader import StatefulDataLoader

    from synthaug.datasets.cache import ImageCache

    def loader():
        pool = {"pool": Pool(keep=16, refresh=0.25), "store": ImageCache(tmp_path, PLAN, base="f00d")} if kind == "pool" else {}
        count = {"count": 16} if kind == "stream" else {}
        stream = RequestStream(PLAN, draw_seed, draw_batch=3, prefetch=2, **pool, **count)
        data = MixedDataset([("photo", PLAN.request(1000 + i)) for i in range(10)], stream, share=0.375) if kind == "mixed" else stream
        return StatefulDataLoader(data, batch_size=2, num_workers=workers, collate_fn=_numbers)

    whole = loader()
    list(whole)
    running = iter(whole)
    for _ in range(taken):
        next(running)
    state = whole.state_dict()
    left, after = list(running), list(whole)
    resumed = loader()

    resumed.load_state_dict(state)

    assert list(resumed) == left
    assert list(resumed) == after


def _numbers(pairs):
    return [(request.index, request.seed) for _, request in pairs]


KILLED = """
import os, signal
from torch.utils.data import DataLoader
from streams import PLAN, draw_seed
from synthaug.datasets.stream import RequestStream

def deadly(requests):
    if requests[0].index == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw_seed(requests)

stream = RequestStream(PLAN, deadly, count=8, draw_batch=1, prefetch=2)
list(DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork"))
"""


@pytest.mark.slow
def test_a_killed_worker_is_an_error_and_no_standstill(request):
    run = subprocess.run(
        [sys.executable, "-c", KILLED], check=False, capture_output=True, text=True, timeout=60, cwd=request.config.rootpath / "tests"
    )

    assert run.returncode == 1
    assert re.search(r"RuntimeError: DataLoader worker .* (is killed by signal|exited unexpectedly)", run.stderr)


@pytest.mark.slow
def test_pocket_feeds_a_loader(tmp_path):
    from conftest import make_tiny_lora

    lora = tmp_path / "iriko.safetensors"
    make_tiny_lora("pocket").write(lora)
    dataset = SyntheticDataset(lora, count=4, steps=2, size=(64, 64), draw_batch=2, cache=tmp_path / "cache", fixed=True)
    loader = DataLoader(dataset, batch_size=2)

    passes = [torch.cat([images for images, _ in loader]) for _ in range(2)]

    assert torch.equal(*passes)
    assert dataset.cache.counts.read == 4
    alone = Sampler("pocket")([Plan.for_lora(lora, steps=2, size=(64, 64)).request(0)])
    assert (alone[0].int() - passes[0][0].int()).abs().max() <= 1
