from __future__ import annotations

import io
import subprocess
import sys
import tarfile

import pytest
import torch
from PIL import Image
from sample_folders import make_samples, picture_of
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from synthaug import ShardDataset, write_shards
from synthaug.errors import SettingError, UnusableFileError


@pytest.fixture
def drawn(tmp_path):
    """Makes a folder of samples without drawing."""

    def make(count=5, *, name="drawn", order=None, **settings):
        return make_samples(tmp_path / name, order or range(count), **settings)

    return make


def read(urls, **settings):
    return {target["index"]: image for image, target in ShardDataset(urls, target="dict", **settings)}


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("per_shard", [2, 20])
def test_every_sample_is_read_once_whatever_the_worker_count(drawn, tmp_path, workers, per_shard):
    write_shards(drawn(7), tmp_path / "out", per_shard=per_shard)
    dataset = ShardDataset(tmp_path / "out", target="dict", shuffle=3)

    seen = [target["index"] for _, target in DataLoader(dataset, batch_size=None, num_workers=workers)]

    assert sorted(seen) == list(range(7))


def test_shuffling_gives_every_pass_another_order_and_equal_seeds_the_same(drawn, tmp_path):
    write_shards(drawn(8), tmp_path / "out", per_shard=2)

    def orders(seed):
        dataset = ShardDataset(tmp_path / "out", target="dict", shuffle=4, seed=seed)
        return [[target["index"] for _, target in dataset] for _ in range(2)]

    assert orders(1) == orders(1) != orders(2)
    assert orders(1)[0] != orders(1)[1]
    assert all(sorted(order) == list(range(8)) for order in orders(1))


def test_shards_are_read_in_another_order_in_every_pass_even_when_hardly_any_sample_is_held(drawn, tmp_path):
    write_shards(drawn(8), tmp_path / "out", per_shard=1)

    def orders(seed):
        dataset = ShardDataset(tmp_path / "out", target="dict", shuffle=1, seed=seed)
        return [[target["index"] for _, target in dataset] for _ in range(2)]

    assert orders(1) == orders(1) != orders(2)
    assert orders(1)[0] != orders(1)[1]


def test_a_loader_gives_batches_after_the_transform(drawn, tmp_path):
    write_shards(drawn(4, label=3), tmp_path / "out")

    [(images, labels)] = DataLoader(
        ShardDataset(tmp_path / "out", transform=v2.Resize((8, 12), antialias=True)), batch_size=4, num_workers=1
    )

    assert images.shape == (4, 3, 8, 12)
    assert labels.tolist() == [3, 3, 3, 3]


def test_shards_are_found_by_folder_pattern_braces_and_list(drawn, tmp_path):
    out = tmp_path / "out"
    write_shards(drawn(5), out, per_shard=2)
    everything = list(range(5))

    assert list(read(out)) == everything
    assert list(read(str(out / "*.tar"))) == everything
    assert list(read(str(out / "shard-{000000..000002}.tar"))) == everything
    assert list(read([out / "shard-000002.tar", str(out / "shard-000000.tar")])) == [4, 0, 1]


def foreign(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def png_bytes(image=None):
    out = io.BytesIO()
    Image.fromarray((picture_of(0) if image is None else image).permute(1, 2, 0).numpy()).save(out, "PNG")
    return out.getvalue()


def test_shards_of_others_are_read_by_image_and_class(tmp_path):
    path = foreign(tmp_path / "theirs.tar", {"a.png": png_bytes(), "a.cls": b"4\n"})

    [(image, label)] = ShardDataset(path)

    assert torch.equal(image, picture_of(0))
    assert label == 4


@pytest.mark.parametrize(
    ("members", "settings", "error", "sentence"),
    [
        ({"a.cls": b"1"}, {}, UnusableFileError, "every sample must hold an image, .*x.tar, a holds cls"),
        ({"a.png": png_bytes()}, {}, UnusableFileError, "every sample must hold a label, .*x.tar, a has no json"),
        ({"a.png": png_bytes(), "a.cls": b"1"}, {"target": "dict"}, SettingError, "needs the request of each sample, .*x.tar, a has none"),
        ({"a.png": b"nonsense", "a.cls": b"1"}, {}, UnusableFileError, "x.tar, a.png is not a picture"),
        ({"a.png": png_bytes()[:-300], "a.cls": b"1"}, {}, UnusableFileError, "x.tar, a.png is damaged"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named(tmp_path, members, settings, error, sentence):
    path = foreign(tmp_path / "x.tar", members)

    with pytest.raises(error, match=sentence):
        list(ShardDataset(path, **settings))


def test_a_shard_that_is_missing_is_named_at_once(drawn, tmp_path):
    write_shards(drawn(3), tmp_path / "out", per_shard=1)
    (tmp_path / "out" / "shard-000001.tar").unlink()

    for urls in (tmp_path / "out", str(tmp_path / "out" / "shard-{000000..000002}.tar")):
        with pytest.raises(UnusableFileError, match=r"there is no shard .*shard-000001.tar"):
            ShardDataset(urls)


@pytest.mark.parametrize(("member", "more"), [(0, 100), (0, 700), (4, 600), (7, 0), (12, 700), (13, 0), (13, 100)])
def test_a_shard_that_was_cut_short_is_named_wherever_it_was_cut(drawn, tmp_path, member, more):
    write_shards(drawn(5), tmp_path / "out")
    path = tmp_path / "out" / "shard-000000.tar"
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[member].offset + more
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(UnusableFileError, match=r"shard-000000.tar(, \S*)? (is damaged|was cut short|has no json)"):
        list(ShardDataset(tmp_path / "out"))


def test_a_shard_cut_between_two_samples_is_noticed_by_its_count(drawn, tmp_path):
    write_shards(drawn(3), tmp_path / "out")
    path = tmp_path / "out" / "shard-000000.tar"
    with tarfile.open(path) as tar:
        start_of_last = tar.getmembers()[-3].offset
    path.write_bytes(path.read_bytes()[:start_of_last])

    with pytest.raises(UnusableFileError, match=r"shard-000000.tar was cut short: its index says 3 samples, 2 are in it"):
        list(ShardDataset(path))


def test_a_text_file_named_tar_is_refused(tmp_path):
    (tmp_path / "x.tar").write_text("not a tar")

    with pytest.raises(UnusableFileError, match=r"the shard .*x.tar is damaged"):
        list(ShardDataset(tmp_path / "x.tar"))


def test_an_unfinished_folder_is_refused_with_both_numbers(drawn, tmp_path):
    manifest = drawn(5)
    (manifest.folder / manifest.samples[3].file).unlink()
    with pytest.raises(UnusableFileError, match="cannot be read"):
        write_shards(manifest, tmp_path / "out", per_shard=2)

    with pytest.raises(UnusableFileError, match="is not finished: 2 of 5 samples are in its shards"):
        ShardDataset(tmp_path / "out")


@pytest.mark.parametrize(
    ("urls", "settings", "error", "sentence"),
    [
        ("none/*.tar", {}, UnusableFileError, "no shard matches none/"),
        ([], {}, SettingError, "got an empty list"),
        ("pipe:cat x.tar", {}, SettingError, "would run a command"),
        ("x-{0..", {}, SettingError, r"pattern 'x-\{0\.\.' cannot be understood"),
        ("x.tar", {"target": "mask"}, SettingError, "unknown target 'mask'"),
        ("x.tar", {"shuffle": -1}, SettingError, "shuffle must not be negative, got -1"),
    ],
)
def test_addresses_and_settings_that_cannot_be_used_are_refused(urls, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        ShardDataset(urls, **settings)


def test_a_damaged_index_is_named(tmp_path):
    (tmp_path / "index.json").write_text("{")

    with pytest.raises(UnusableFileError, match=r"index.json is not an index of shards"):
        ShardDataset(tmp_path)


@pytest.mark.slow  # a fresh interpreter has to import torch
def test_reading_shards_loads_no_diffusion_model():
    program = "import sys; from synthaug import ShardDataset; print(sorted({'diffusers', 'transformers', 'lightning'} & set(sys.modules)))"

    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
