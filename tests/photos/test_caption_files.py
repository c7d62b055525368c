from __future__ import annotations

import codecs

import pytest

from synthaug.errors import OutputError, PhotoFolderError, SettingError
from synthaug.photos.caption_files import caption_file, is_utf8, read_caption, write_caption

JAPANESE = "いりこ、大きい魚"


def test_the_first_line_counts_or_every_line_that_says_something(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeff  one \r\n\r\n two\n".encode())

    assert read_caption(file) == "one"
    assert read_caption(file, every_line=True) == "one\ntwo"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (JAPANESE.encode("shift_jis"), "shift_jis"),
        ("poisson salé".encode("latin-1"), "latin-1"),
        ("a fish".encode("utf-16"), "utf-16"),
        ("a fish".encode("utf-16-le"), "utf-16-le"),
        ("a fish".encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF16_BE + JAPANESE.encode("utf-16-be"), "utf-16"),
    ],
)
def test_another_encoding_is_refused_with_the_way_out_which_then_works(tmp_path, data, encoding):
    file = tmp_path / "a.txt"
    file.write_bytes(data)

    with pytest.raises(PhotoFolderError, match=rf"a caption file must be UTF-8, .*a\.txt is not; .* --encoding {encoding} if that"):
        read_caption(file)
    assert read_caption(file, encoding=encoding) == data.decode(encoding).removeprefix("\ufeff")


def test_files_in_utf8_are_read_as_such_whatever_the_others_are(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(JAPANESE, encoding="utf-8")

    assert read_caption(file, encoding="shift_jis") == JAPANESE


def test_an_encoding_that_does_not_exist_or_does_not_fit_is_named(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xff\xfe\xfd")

    with pytest.raises(SettingError, match=r"encoding must be one that Python knows, such as shift_jis, .* got 'klingon'"):
        read_caption(file, encoding="klingon")
    file.write_bytes("salé".encode("latin-1"))
    with pytest.raises(PhotoFolderError, match=r"a\.txt is neither UTF-8 nor ascii; try --encoding latin-1"):
        read_caption(file, encoding="ascii")


def test_the_caption_file_is_the_first_of_the_endings_that_is_there(tmp_path):
    photo = tmp_path / "a.b.jpg"
    assert caption_file(photo) is None
    for ending in (".caption", ".txt", ".tags"):
        (tmp_path / f"a.b{ending}").write_text("x")

    assert caption_file(photo) == tmp_path / "a.b.txt"
    assert caption_file(photo, (".tags",)) == tmp_path / "a.b.tags"


def test_what_is_written_is_utf8_and_whole(tmp_path):
    write_caption(tmp_path / "a.txt", JAPANESE)

    assert (tmp_path / "a.txt").read_bytes() == (JAPANESE + "\n").encode()
    assert is_utf8((tmp_path / "a.txt").read_bytes())
    with pytest.raises(OutputError, match=r"a\.txt could not be written .*; free some space"):
        write_caption(tmp_path / "nowhere" / "a.txt", "x")
