from __future__ import annotations

import torch

from synthaug.diffusion.guidance import guided, rescaled


def test_each_sample_has_a_scale_of_its_own_and_one_is_the_prompt_alone():
    torch.manual_seed(0)
    cond, uncond = torch.randn(3, 4, 5, 7), torch.randn(3, 4, 5, 7)

    out = guided(cond, uncond, torch.tensor([1.0, 0.0, 7.5]))

    assert torch.allclose(out[0], cond[0], atol=1e-6)
    assert torch.equal(out[1], uncond[1])
    assert torch.allclose(out[2], uncond[2] + 7.5 * (cond[2] - uncond[2]), atol=1e-5)


def test_rescaling_equals_that_of_diffusers_with_a_share_per_sample():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    torch.manual_seed(0)
    cond, answer = torch.randn(3, 4, 5, 7), 2.5 * torch.randn(3, 4, 5, 7)

    out = rescaled(answer, cond, torch.tensor([0.0, 0.7, 1.0]))

    for row, share in enumerate((0.0, 0.7, 1.0)):
        theirs = rescale_noise_cfg(answer[row : row + 1], cond[row : row + 1], guidance_rescale=share)
        assert torch.allclose(out[row], theirs[0], atol=1e-5)
