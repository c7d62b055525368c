from __future__ import annotations

import pytest
from conftest import make_photo
from PIL import Image, ImageCms

from synthaug.errors import UnusableFileError
from synthaug.photos.exif import FileFacts, file_facts
from synthaug.pixels import read_image


def test_a_plain_photo_says_nothing(tmp_path):
    make_photo().save(tmp_path / "a.jpg")

    assert file_facts(tmp_path / "a.jpg") == FileFacts()


def test_orientation_place_profile_and_colours_are_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (35.0, 41.0, 22.0)})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    make_photo().save(tmp_path / "a.jpg", exif=exif, icc_profile=profile)
    make_photo().convert("CMYK").save(tmp_path / "b.jpg", icc_profile=b"nonsense")
    make_photo().convert("L").save(tmp_path / "c.png")

    facts = file_facts(tmp_path / "a.jpg")

    assert (facts.orientation, facts.gps, facts.broken_exif) == (6, True, False)
    assert "sRGB" in facts.profile
    assert file_facts(tmp_path / "b.jpg") == FileFacts(colours="CMYK", profile="broken")
    assert file_facts(tmp_path / "c.png").colours == "grey"


@pytest.mark.parametrize("block", [b"Exif\0\0garbage!!", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0II*\0\x08\0\0\0\x05\0"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_broken_exif_is_no_broken_photo(tmp_path, block, suffix):
    make_photo((20, 30)).save(tmp_path / f"a.{suffix}", exif=block)

    assert file_facts(tmp_path / f"a.{suffix}").broken_exif
    assert read_image(tmp_path / f"a.{suffix}").shape == (3, 20, 30)


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "a.jpg").write_text("no photo")

    with pytest.raises(UnusableFileError, match=r"a\.jpg is not a picture that can be read .*leave it out"):
        file_facts(tmp_path / "a.jpg")
