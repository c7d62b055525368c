from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from tiny_networks import SCHEDULE, tiny_base_of, tiny_batch, tiny_encoder, tiny_unet
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from synthaug.errors import SettingError
from synthaug.pocket.words import train_tokenizer
from synthaug.prompts.encode import token_chunks
from synthaug.training import LoraShape, LoraTraining
from synthaug.training.conditions import Conditions
from synthaug.training.loss import Loss
from synthaug.training.rows import Rows


@pytest.fixture
def on(monkeypatch):
    """Makes a module on a base that is in memory."""

    def make(base, **settings) -> LoraTraining:
        monkeypatch.setattr("synthaug.training.frozen.load_base", lambda *_, **__: base)
        module = LoraTraining("tiny", shape=LoraShape(rank=2, alpha=2.0), **settings)
        module.configure_model()
        monkeypatch.setattr(module, "log", lambda *_, **__: None)
        return module

    return make


def rows_of(batch) -> Rows:
    scales = torch.linspace(0.99, 0.1, 1000), torch.linspace(0.14, 0.99, 1000)
    return Rows.drawn(batch, Loss(), scales, torch.Generator().manual_seed(0))


def test_sdxl_is_told_the_pooled_text_and_the_sizes_as_its_unet_takes_them(on):
    module, batch = on(tiny_base_of("sdxl")), tiny_batch(family="sdxl")
    rows = rows_of(batch)

    answer = module(*module._conditions.inputs(rows))

    added = {"text_embeds": batch["pooled"], "time_ids": batch["time_ids"]}
    assert module.family == "sdxl"
    expected = tiny_unet(family="sdxl")(rows.z, rows.t, batch["states"], added_cond_kwargs=added).sample
    assert torch.allclose(answer, expected, atol=1e-5)
    other = rows_of({**batch, "time_ids": batch["time_ids"] + 7})
    assert not torch.allclose(answer, module(*module._conditions.inputs(other)), atol=1e-6)


def test_text_states_of_trained_encoders_are_those_of_diffusers(tmp_path):
    tokenizer = train_tokenizer(["a photo of a fish on white paper", "a screw"], tmp_path / "words")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, projection_dim=12, num_hidden_layers=3, num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    encoders = CLIPTextModel(config).eval(), CLIPTextModelWithProjection(config).eval()
    pipeline = StableDiffusionXLPipeline(
        vae=None, unet=None, scheduler=None, tokenizer=tokenizer, tokenizer_2=tokenizer, text_encoder=encoders[0],
        text_encoder_2=encoders[1], add_watermarker=False,
    )  # fmt: skip
    tokens = torch.tensor(token_chunks("a fish", tokenizer)).flatten()[None].repeat(3, 1)
    batch = tiny_batch(family="sdxl") | {"tokens": tokens, "tokens_2": tokens}

    with torch.no_grad():
        _, _, states, added = Conditions(family="sdxl", inpaints=False, encoders=encoders).inputs(rows_of(batch))
        theirs, _, pooled, _ = pipeline.encode_prompt("a fish", device="cpu", do_classifier_free_guidance=False)

    assert torch.allclose(states, theirs.expand(3, -1, -1), atol=1e-6)
    assert torch.allclose(added["text_embeds"], pooled.expand(3, -1), atol=1e-6)


def test_chunks_of_a_long_text_are_read_one_by_one_and_the_first_is_pooled():
    encoders = tiny_encoder(), tiny_encoder(projects=True, seed=2)
    batch = tiny_batch(2, family="sdxl", chunks=2)
    made = Conditions(family="sdxl", inpaints=False, encoders=encoders)

    _, _, both, added = made.inputs(rows_of(batch))
    parts = [made.inputs(rows_of({**batch, "tokens": batch["tokens"][:, cut], "tokens_2": batch["tokens_2"][:, cut]}))
             for cut in (slice(77), slice(77, None))]  # fmt: skip

    assert both.shape == (2, 154, 32)
    assert torch.allclose(both, torch.cat([part[2] for part in parts], 1), atol=1e-6)
    assert torch.allclose(added["text_embeds"], parts[0][3]["text_embeds"], atol=1e-6)


def test_both_text_encoders_of_sdxl_are_trained_at_their_own_rate(on):
    module = on(tiny_base_of("sdxl"), text_learning_rate=1e-2)

    module.training_step(tiny_batch(family="sdxl")).backward()

    layers = module.layers()
    assert all(layers[kind] for kind in ("unet", "text_encoder", "text_encoder_2"))
    for kind in ("text_encoder", "text_encoder_2"):
        assert any(
            weight.grad is not None and weight.grad.abs().max() > 0
            for name, weight in module.trained.items()
            if name.startswith(f"{kind}.")
        )
    assert {path.split(".")[0] for path in layers["text_encoder"]} == {"encoder"}


def test_without_a_text_learning_rate_cached_states_are_enough_for_sdxl(on):
    module = on(tiny_base_of("sdxl"))
    batch = tiny_batch(family="sdxl")
    del batch["tokens"], batch["tokens_2"]

    module.training_step(batch).backward()

    assert (module.text_encoder, module.text_encoder_2) == (None, None)


def test_mask_and_masked_photo_go_in_behind_the_noised_latents(on):
    module, batch = on(tiny_base_of(inpaints=True)), tiny_batch()
    batch["inpaint"] = torch.rand(3, 5, 4, 6)
    rows = rows_of(batch)

    z = module._conditions.inputs(rows)[0]
    loss = module.training_step(batch)

    assert torch.equal(z, torch.cat([rows.z, batch["inpaint"]], 1))
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("family", "text", "lacking", "sentence"),
    [
        ("sdxl", 0.0, "pooled", "a batch for a Stable Diffusion XL base must have pooled, it has states, time_ids, tokens, tokens_2"),
        ("sdxl", 0.0, "time_ids", "must have time_ids"),
        ("sdxl", 1e-3, "tokens_2", "must have tokens_2"),
        ("sd1", 0.0, "states", "a batch for this base must have states"),
        ("sd1", 1e-3, "tokens", "a batch for this base must have tokens, it has states; give --data.base the same base as --model.base"),
    ],
)
def test_a_batch_that_lacks_something_is_a_sentence(on, family, text, lacking, sentence):
    module, batch = on(tiny_base_of(family), text_learning_rate=text), tiny_batch(family=family)
    del batch[lacking]

    with pytest.raises(SettingError, match=sentence):
        module.training_step(batch)


def test_an_inpainting_base_wants_the_masked_photo_in_its_shape(on):
    module, batch = on(tiny_base_of(inpaints=True)), tiny_batch()

    with pytest.raises(SettingError, match="a batch for a base that inpaints must have inpaint, it has states, tokens"):
        module.training_step(batch)
    with pytest.raises(
        SettingError, match=r"inpaint must be a mask and the masked photo's latents, \(3, 5, 4, 6\), the batch has \(3, 4, 4, 6\)"
    ):
        module.training_step(batch | {"inpaint": torch.rand(3, 4, 4, 6)})


@pytest.mark.parametrize(("asked", "predicts"), [("v_prediction", "epsilon"), ("epsilon", "v_prediction")])
def test_a_base_that_predicts_something_else_is_refused(on, asked, predicts):
    schedule = {**SCHEDULE, "prediction_type": predicts}

    with pytest.raises(SettingError, match=f"tiny predicts {predicts}, not {asked}; leave --model.prediction out"):
        on(tiny_base_of(schedule=schedule), prediction=asked)
    assert on(tiny_base_of(schedule=schedule), prediction=predicts).kind == predicts
    assert on(tiny_base_of(schedule=schedule)).kind == predicts


def test_a_base_with_an_unknown_prediction_or_schedule_is_refused(on):
    with pytest.raises(SettingError, match="a base must predict one of epsilon, v_prediction, sample, tiny predicts 'flow'"):
        on(tiny_base_of(schedule={**SCHEDULE, "prediction_type": "flow"}))
    with pytest.raises(SettingError, match="unknown noise schedule of a base 'exp'; choose one of: linear, scaled_linear"):
        on(tiny_base_of(schedule={**SCHEDULE, "beta_schedule": "exp"}))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_base_that_was_stored_in_halves_is_trained_on_in_fp32(on, family):
    base = tiny_base_of(family)
    base.unet.half()
    expected = tiny_unet(family=family).half().float()

    module, rows = on(base), rows_of(tiny_batch(family=family))

    assert {weight.dtype for weight in module.unet.parameters()} == {torch.float32}
    added = {"text_embeds": rows.given["pooled"], "time_ids": rows.given["time_ids"]} if family == "sdxl" else None
    assert torch.allclose(
        module(*module._conditions.inputs(rows)), expected(rows.z, rows.t, rows.given["states"], added_cond_kwargs=added).sample, atol=1e-5
    )
    module.training_step(tiny_batch(family=family))
