from __future__ import annotations

import torch
from conftest import make_tiny_lora

from synthaug.generation import Preview


def test_a_preview_draws_every_file_from_the_same_seeds(tiny_base, tmp_path):
    preview, path = Preview(count=3, steps=2), tmp_path / "interim.safetensors"

    images = []
    for seed in (1, 2, 1):
        make_tiny_lora(tiny_base, seed=seed).write(path)
        images.append(preview.draw(path))

    assert images[0].shape == (3, 3, 32, 32)
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])


def test_a_prompt_of_its_own_replaces_the_caption_of_the_file(tiny_lora):
    images = [Preview(count=1, steps=2, prompt=prompt).draw(tiny_lora) for prompt in (None, "a photo of iriko", "a screw")]

    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
