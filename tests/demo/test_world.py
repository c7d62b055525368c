from PIL import Image

from synthaug.demo.world import render_world
from synthaug.pixels import digest, read_image


def test_every_fish_of_the_world_is_another_one_and_test_fish_are_not_trained_on(tmp_path):
    world = render_world(tmp_path, sound=3, burst=2, test=2, seed=0)
    folders = (world.sound, world.burst, world.test_sound, world.test_burst)

    counts = [len(list(folder.glob("*.jpg"))) for folder in folders]
    hashes = {digest(read_image(path)) for folder in folders for path in folder.iterdir()}

    assert counts == [3, 2, 2, 2]
    assert len(hashes) == sum(counts)
    with Image.open(next(world.burst.iterdir())) as photo:
        assert photo.size == (128, 128)
