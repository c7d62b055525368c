from __future__ import annotations

import torch

from synthaug.diffusion.guidance import guided


def test_each_sample_has_a_scale_of_its_own_and_one_is_the_prompt_alone():
    torch.manual_seed(0)
    cond, uncond = torch.randn(3, 4, 5, 7), torch.randn(3, 4, 5, 7)

    out = guided(cond, uncond, torch.tensor([1.0, 0.0, 7.5]))

    assert torch.allclose(out[0], cond[0], atol=1e-6)
    assert torch.equal(out[1], uncond[1])
    assert torch.allclose(out[2], uncond[2] + 7.5 * (cond[2] - uncond[2]), atol=1e-5)
