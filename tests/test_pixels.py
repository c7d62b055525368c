from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from synthaug import pixels
from synthaug.errors import OutputError, SettingError, UnusableFileError
from synthaug.pixels import digest, framed, framed_mask, read_alpha, read_image, read_mask, save_mask, save_png, to_float, to_uint8


def halves(height=10, width=16):
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), (255, 0, 0))
    picture.paste((0, 0, 255), (width // 2, 0, width, height))
    return picture


def noise(height=17, width=11, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_whatever_its_exif_orientation(tmp_path, orientation):
    upright = Image.fromarray(noise(10, 16).permute(1, 2, 0).numpy())
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera would have stored it: the transposition undone
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)

    image = read_image(tmp_path / "photo.png")

    assert torch.equal(image, torch.from_numpy(np.array(upright)).permute(2, 0, 1))


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("bmp", {}), ("tif", {}), ("webp", {"lossless": True})])
def test_pictures_without_loss_are_read_exactly(tmp_path, suffix, options):
    halves().save(tmp_path / f"a.{suffix}", **options)

    image = read_image(tmp_path / f"a.{suffix}")

    assert torch.equal(image, torch.from_numpy(np.array(halves())).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "suffix", "colour"),
    [
        ("L", "png", (76, 76, 76)),
        ("CMYK", "jpg", (254, 0, 0)),
        ("P", "png", (255, 0, 0)),
        ("1", "png", (0, 0, 0)),
        ("LA", "png", (76, 76, 76)),
    ],
)
def test_other_modes_become_srgb(tmp_path, mode, suffix, colour):
    Image.new("RGB", (9, 7), (255, 0, 0)).convert(mode, dither=Image.Dither.NONE).save(tmp_path / f"a.{suffix}")

    image = read_image(tmp_path / f"a.{suffix}")

    assert image.shape == (3, 7, 9)
    assert image.dtype == torch.uint8
    assert np.abs(np.array(colour) - image[:, 3, 4].numpy().astype(int)).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight_over_the_whole_range(tmp_path, suffix):
    Image.fromarray(np.array([[0, 257 * 200, 65535]], np.uint16)).save(tmp_path / f"a.{suffix}")

    image = read_image(tmp_path / f"a.{suffix}")

    assert image[:, 0].tolist() == [[0, 200, 255]] * 3


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (6, 5), (0, 0, 0, 0))
    picture.putpixel((2, 3), (0, 200, 0, 255))
    picture.convert(mode).save(tmp_path / "a.png")

    image = read_image(tmp_path / "a.png")

    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 3, 2].tolist() == [0, 200, 0]


def test_an_embedded_profile_is_honoured_and_a_broken_one_is_not_a_broken_picture(tmp_path):
    picture = Image.new("RGB", (4, 4), (200, 100, 50))
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("srgb", srgb), ("broken", b"not a profile"), ("lab", lab), ("xyz", linear)):
        picture.save(tmp_path / f"{name}.png", icc_profile=profile)

    assert read_image(tmp_path / "srgb.png")[:, 0, 0].tolist() == [200, 100, 50]
    assert read_image(tmp_path / "broken.png")[:, 0, 0].tolist() == [200, 100, 50]
    assert read_image(tmp_path / "lab.png")[:, 0, 0].tolist() == [200, 100, 50]


def test_another_colour_space_is_converted(tmp_path):
    swapped = _with_swapped_red_and_green()
    Image.new("RGB", (4, 4), (250, 0, 0)).save(tmp_path / "a.png", icc_profile=swapped)

    red, green, _ = read_image(tmp_path / "a.png")[:, 0, 0].tolist()

    assert green > 200 > 60 > red


def _with_swapped_red_and_green() -> bytes:
    """sRGB's profile with the names of two of its primaries exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_a_truncated_photo_is_refused_by_name(tmp_path):
    noisy = Image.fromarray(noise(60, 70).permute(1, 2, 0).numpy())
    noisy.save(tmp_path / "half.jpg")
    whole = (tmp_path / "half.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(UnusableFileError, match=r"half\.jpg is damaged .*truncated"):
        read_image(tmp_path / "half.jpg")


@pytest.mark.parametrize("content", [b"", b"these are my photos", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a"])
def test_what_is_no_photo_is_refused_whatever_its_name(tmp_path, content):
    (tmp_path / "photo.jpg").write_bytes(content)

    with pytest.raises(UnusableFileError, match=r"photo\.jpg is not a picture that can be read, whatever its name says"):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("side", "sentence"),
    [
        (12_000, r"at most 120,000,000 pixels, .*bomb\.png says 12000 x 12000; make it smaller, or leave it out"),
        (60_000, r"bomb\.png would unpack to too many pixels"),
    ],
)
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path, side, sentence):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND"))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)

    with pytest.raises(UnusableFileError, match=sentence):
        read_image(tmp_path / "bomb.png")


def test_a_missing_file_and_a_folder_are_refused_with_their_name(tmp_path):
    with pytest.raises(UnusableFileError, match=r"there is no file .*nothing\.png; check the path"):
        read_image(tmp_path / "nothing.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnusableFileError, match=r"folder\.png is damaged .*directory"):
        read_image(tmp_path / "folder.png")


def test_flipped_bytes_never_end_in_a_traceback(tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    read = 0
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        out = io.BytesIO()
        halves().save(out, kind, exif=exif)
        for _ in range(60):
            data = np.frombuffer(out.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            try:
                assert read_image("photo", data=data.tobytes(), max_pixels=10_000).dtype == torch.uint8
                read += 1
            except UnusableFileError:
                pass
    assert 0 < read < 300


def test_framing_cuts_the_middle_and_keeps_the_shape_of_things():
    image = torch.zeros(3, 20, 60, dtype=torch.uint8)
    image[:, :, 20:40] = 255

    assert framed(image, (10, 10)).min() == 255
    assert framed(image, (20, 60)).equal(image)
    assert framed(image, (8, 400)).shape == (3, 8, 400)
    assert framed(image[:, :, 30:31], (8, 4000)).float().mean() == 255


def test_a_mask_is_framed_like_its_picture_and_stays_black_and_white():
    mask = (torch.arange(33)[:, None] + torch.arange(51)[None] > 40).to(torch.uint8)
    picture = (mask * 255).expand(3, -1, -1)

    small = framed_mask(mask, (16, 16))

    assert set(small.unique().tolist()) == {0, 1}
    assert ((framed(picture, (16, 16))[0] > 127).to(torch.uint8) != small).float().mean() < 0.05


def test_a_mask_survives_the_disk(tmp_path):
    mask = (torch.rand(9, 14, generator=torch.Generator().manual_seed(0)) > 0.5).to(torch.uint8)

    save_mask(mask, tmp_path / "m.png")

    assert torch.equal(read_mask(tmp_path / "m.png"), mask)
    assert np.array(Image.open(tmp_path / "m.png")).max() == 255


def test_floats_and_bytes_are_each_others_inverse():
    every = torch.arange(256, dtype=torch.uint8)

    assert torch.equal(to_uint8(to_float(every)), every)


def test_the_digest_sees_a_single_bit_and_the_shape():
    image = noise(6, 4)
    other = image.clone()
    other[0, 0, 0] ^= 1

    assert digest(image) == digest(image.clone())
    assert digest(image) != digest(other)
    assert digest(image) != digest(image.reshape(3, 4, 6))


def test_a_png_gives_back_pixels_and_text_and_equal_bytes(tmp_path):
    image = noise()

    save_png(image, tmp_path / "a.png", text={"parameters": "a fish\nSteps: 20", "note": "いりこ"})
    save_png(image, tmp_path / "b.png", text={"parameters": "a fish\nSteps: 20", "note": "いりこ"})

    assert torch.equal(read_image(tmp_path / "a.png"), image)
    assert pixels.picture_text(tmp_path / "a.png") == {"parameters": "a fish\nSteps: 20", "note": "いりこ"}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


TEXTS = {"parameters": "a (fish:1.2), いりこ\nSteps: 20, Sampler: Euler, CFG scale: 7", "synthaug": '{"prompt": "いりこ"}'}


@pytest.mark.parametrize(("suffix", "off"), [("png", 0), ("webp", 0), ("jpg", 3)])
def test_a_picture_of_every_kind_gives_back_pixels_and_texts_and_equal_bytes(tmp_path, suffix, off):
    image = noise() if off == 0 else noise(16, 16)[:, :1, :1].expand(3, 16, 16).contiguous()

    for name in "ab":
        pixels.save_image(image, tmp_path / f"{name}.{suffix}", text=TEXTS)

    assert (read_image(tmp_path / f"a.{suffix}").int() - image.int()).abs().max() <= off
    assert pixels.picture_text(tmp_path / f"a.{suffix}") == TEXTS
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("start", [b"UNICODE\0", b"ASCII\0\0\0", b""])
@pytest.mark.parametrize("letters", ["utf-16-be", "utf-16-le"])
def test_infotext_of_other_tools_is_read_from_a_jpeg_however_its_letters_lie(tmp_path, start, letters):
    text = "a photo of いりこ\nSteps: 20" if start == b"UNICODE\0" else "a photo\nSteps: 20"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = start + text.encode(letters if start == b"UNICODE\0" else "ascii")
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.jpg", exif=exif)

    assert pixels.picture_text(tmp_path / "theirs.jpg") == {"parameters": text}


def test_a_picture_without_words_and_a_maker_note_of_a_camera_say_nothing(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = b"Nikon\0\x02"
    Image.new("RGB", (8, 8)).save(tmp_path / "camera.jpg", exif=exif)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.bmp")

    assert pixels.picture_text(tmp_path / "camera.jpg") == pixels.picture_text(tmp_path / "plain.bmp") == {}


def test_text_that_a_kind_of_file_cannot_carry_and_an_unknown_ending_are_refused(tmp_path):
    with pytest.raises(SettingError, match=r"a JPEG has room for 65,527 bytes of text, got .*; shorten the prompt, or write a PNG"):
        pixels.save_image(noise(), tmp_path / "a.jpg", text={"parameters": "fish " * 9000})
    with pytest.raises(SettingError, match="a webp carries the texts parameters and synthaug, got note; write a PNG"):
        pixels.save_image(noise(), tmp_path / "a.webp", text={"note": "x"})
    with pytest.raises(SettingError, match=r"written as \.png, \.jpg or \.webp, got a\.gif"):
        pixels.save_image(noise(), tmp_path / "a.gif")
    with pytest.raises(UnusableFileError, match=r"there is no file .*none\.png"):
        pixels.picture_text(tmp_path / "none.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(UnusableFileError, match=r"torn\.png is damaged"):
        pixels.picture_text(tmp_path / "torn.png")
    assert [path.name for path in tmp_path.iterdir()] == ["torn.png"]


def test_a_full_disk_leaves_the_old_picture_and_no_rubbish(tmp_path, monkeypatch):
    save_png(noise(seed=1), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(self, target, *_, **__):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"a\.png could not be written \(No space left on device\); free some space"):
        save_png(noise(seed=2), tmp_path / "a.png")

    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_is_not_there_is_said_in_a_sentence(tmp_path):
    with pytest.raises(OutputError, match=r"no/a\.png could not be written \(No such file or directory\)"):
        save_png(noise(), tmp_path / "no" / "a.png")


@pytest.mark.parametrize("error", [MemoryError(), TypeError("ours")])
def test_our_own_mistakes_are_not_called_damage_to_the_file(error, tmp_path, monkeypatch):
    save_png(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "sound.png")

    def fail(_picture):
        raise error

    monkeypatch.setattr("synthaug.pixels.reading._as_srgb", fail)

    with pytest.raises(type(error)):
        read_image(tmp_path / "sound.png")


def test_running_out_of_memory_is_not_called_damage_to_the_file(tmp_path, monkeypatch):
    save_png(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "sound.png")

    def fail(*_args, **_settings):
        raise MemoryError

    monkeypatch.setattr("PIL.Image.open", fail)

    with pytest.raises(MemoryError):
        read_image(tmp_path / "sound.png")


def test_a_mask_that_can_be_seen_through_marks_what_cannot(tmp_path):
    alpha = np.zeros((9, 14), np.uint8)
    alpha[2:5, 3:9] = 255
    for name, colour in (("white", "white"), ("black", "black")):
        layer = Image.new("RGB", (14, 9), colour)
        layer.putalpha(Image.fromarray(alpha))
        layer.save(tmp_path / f"{name}.png")
    Image.new("RGBA", (14, 9), "white").save(tmp_path / "solid.png")

    assert np.array_equal(read_mask(tmp_path / "white.png").numpy(), alpha // 255)
    assert np.array_equal(read_mask(tmp_path / "black.png").numpy(), alpha // 255)
    assert read_mask(tmp_path / "solid.png").all()
    assert read_alpha(tmp_path / "solid.png") is None
