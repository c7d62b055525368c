import pytest

from synthaug.errors import PhotoFolderError, SettingError
from synthaug.photos.buckets import Buckets


@pytest.mark.parametrize("like", [(512, 512), (512, 768), (1024, 1024)])
def test_sizes_lie_within_area_sides_and_step_and_cannot_grow(like):
    buckets = Buckets(enabled=True, smallest=320, largest=1280)

    sizes = buckets.sizes(like)

    assert len(sizes) == len(set(sizes)) > 3
    for height, width in sizes:
        assert height % 64 == width % 64 == 0
        assert 320 <= min(height, width) <= max(height, width) <= 1280
        assert height * width <= like[0] * like[1]
        assert (width, height) in sizes
    widest = [max(w for h, w in sizes if h == height) for height, _ in sizes]
    assert all(w + 64 > 1280 or h * (w + 64) > like[0] * like[1] for (h, _), w in zip(sizes, widest, strict=True))


@pytest.mark.parametrize(
    ("photo", "size"),
    [
        ((3000, 3000), (512, 512)),
        ((3000, 4000), (448, 576)),
        ((4000, 3000), (576, 448)),
        ((1000, 9000), (256, 1024)),
        ((50, 50), (512, 512)),
    ],
)
def test_a_photo_gets_the_size_of_the_nearest_shape(photo, size):
    assert Buckets(enabled=True).size_for(photo, (512, 512)) == size


def test_of_two_shapes_equally_near_the_larger_one_is_taken():
    buckets = Buckets(enabled=True, step=64, smallest=64, largest=1024)

    assert buckets.size_for((300, 300), (512, 512)) == (512, 512)


def test_without_buckets_every_photo_has_the_one_size():
    assert Buckets().size_for((3000, 4000), (512, 512)) == (512, 512)


@pytest.mark.parametrize(("photo", "size"), [((300, 400), (256, 384)), ((200, 200), (192, 192)), ((3000, 4000), (448, 576))])
def test_without_upscale_a_small_photo_gets_a_size_of_its_own(photo, size):
    assert Buckets(enabled=True, upscale=False).size_for(photo, (512, 512)) == size


def test_a_photo_below_one_step_cannot_keep_its_size():
    with pytest.raises(PhotoFolderError, match=r"at least buckets.step \(64\) pixels high and wide, there is one of 300 x 40;"):
        Buckets(enabled=True, upscale=False).size_for((300, 40), (512, 512))


def test_sides_too_long_for_the_area_are_refused_with_a_way_out():
    with pytest.raises(SettingError, match=r"none of at most 128 x 128; use a smaller --data.buckets.smallest"):
        Buckets(enabled=True).size_for((300, 400), (128, 128))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"step": 20}, r"buckets.step must be a multiple of 8, at least 8; 64 is usual, got 20"),
        ({"step": 0}, r"buckets.step must be a multiple of 8"),
        ({"smallest": 32}, r"buckets.smallest must be at least buckets.step, got 32"),
        ({"largest": 128}, r"buckets.largest must be at least buckets.smallest, got 128"),
    ],
)
def test_nonsense_is_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        Buckets(**settings)
