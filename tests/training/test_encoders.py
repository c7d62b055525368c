import shutil

import pytest
import torch
from checkpoints import bare_file, shrunken

from synthaug.errors import NumericsError, SettingError
from synthaug.models.load import load_base
from synthaug.prompts.encode import TextStates, text_states_of, token_chunks
from synthaug.training.base_marks import base_mark
from synthaug.training.encoders import Encoders
from synthaug.training.encoding import TextBank
from synthaug.training.latent_cache import Cache

PICTURE = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_nothing_is_loaded_before_it_is_needed(tiny_base):
    encoders = Encoders(str(tiny_base))
    encoders.mark("vae")
    assert encoders.loaded == []

    encoders.latents(PICTURE, "a.png")
    encoders.text("a fish")
    encoders.text("a screw")

    assert encoders.loaded == ["vae", "text"]


def test_latents_are_the_posterior_times_the_bases_scale(tiny_base):
    vae = load_base(str(tiny_base), parts=("vae",)).vae

    mean, std = Encoders(str(tiny_base)).latents(PICTURE, "a.png")

    posterior = vae.encode(PICTURE[None]).latent_dist
    assert torch.equal(mean, posterior.mean[0] * vae.config.scaling_factor)
    assert torch.equal(std, posterior.std[0] * vae.config.scaling_factor)


def poisoned(monkeypatch, *, always: bool) -> None:
    """A VAE that answers NaN in half precision, or always."""
    whole = Encoders._posterior

    def answer(self, vae, picture):
        found = whole(self, vae, picture)
        return found * float("nan") if always or vae.dtype != torch.float32 else found

    monkeypatch.setattr(Encoders, "_posterior", answer)


def test_nan_in_half_precision_is_encoded_again_in_fp32_and_counted(tiny_base, monkeypatch):
    exact, _ = Encoders(str(tiny_base)).latents(PICTURE, "a.png")
    poisoned(monkeypatch, always=False)
    encoders = Encoders(str(tiny_base), precision="bf16")

    means = [encoders.latents(PICTURE, "a.png")[0] for _ in range(2)]

    assert encoders.repairs == 2
    assert all((mean - exact).abs().max() < 0.05 * exact.abs().max() for mean in means)
    assert encoders._vae.dtype == torch.bfloat16


def test_nan_in_fp32_names_the_photo(tiny_base, monkeypatch):
    poisoned(monkeypatch, always=True)

    with pytest.raises(NumericsError, match=r"the encoder answered NaN for fish_07.jpg even in fp32; the VAE of .* is damaged"):
        Encoders(str(tiny_base), precision="bf16").latents(PICTURE, "fish_07.jpg")


def test_texts_of_different_lengths_end_alike_with_empty_chunks(tiny_base):
    base = load_base(str(tiny_base), parts=("text",))
    states = TextStates(base.tokenizer, base.text_encoder)
    long = "a photo of a fish on white paper " * 20
    bank = TextBank(["a fish", long, "a fish"], Encoders(str(tiny_base)), Cache(None))

    rows = bank.rows(torch.tensor([bank.row(text) for text in ("a fish", long, "")]))

    chunks = len(token_chunks(long, base.tokenizer))
    assert chunks > 1
    assert len(bank) == 3
    for row, text in enumerate(("a fish", long, "")):
        assert torch.equal(rows["states"][row], states(text, chunks))
        own = torch.tensor(token_chunks(text, base.tokenizer)).flatten()
        assert torch.equal(rows["tokens"][row][: len(own)], own)


def test_a_base_with_two_text_encoders_has_pooled_states_and_a_second_row_of_tokens(tiny_sdxl_base):
    states = text_states_of(load_base(str(tiny_sdxl_base), parts=("text",)))
    long = "a photo of a fish on white paper " * 20
    bank = TextBank([long, "a fish"], Encoders(str(tiny_sdxl_base)), Cache(None))

    rows = bank.rows(torch.tensor([bank.row("a fish"), bank.row("")]))

    for row, text in enumerate(("a fish", "")):
        tokens, tokens_2 = states.tokens(text, states.chunks(long))
        assert torch.equal(rows["tokens"][row], tokens)
        assert torch.equal(rows["tokens_2"][row], tokens_2)
        assert torch.equal(rows["states"][row], states(text, states.chunks(long)))
        assert torch.equal(rows["pooled"][row], states.pooled(text))
    assert not torch.equal(rows["tokens"], rows["tokens_2"])


def test_a_base_is_known_by_its_files_and_every_value_in_them(tiny_base, other_base, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    parts = ("unet", "vae", "text")
    marks = {part: base_mark(str(tiny_base), part) for part in parts}
    assert {part: base_mark(str(copy), part) for part in parts} == marks
    assert all(base_mark(str(other_base), part) != mark for part, mark in marks.items())

    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    assert base_mark(str(copy), "vae") != marks["vae"]
    assert base_mark(str(copy), "text") == marks["text"]


def test_a_single_file_is_known_by_the_tensors_of_the_part(tmp_path):
    from safetensors.torch import save_file

    tensors = {"first_stage_model.a": torch.ones(3), "model.diffusion_model.b": torch.zeros(2)}
    save_file(tensors, tmp_path / "base.safetensors")
    save_file({**tensors, "model.diffusion_model.b": torch.ones(2)}, tmp_path / "tuned.safetensors")
    first, second = (str(tmp_path / f"{name}.safetensors") for name in ("base", "tuned"))

    assert base_mark(first, "vae") == base_mark(second, "vae") is not None
    assert base_mark(first, "unet") != base_mark(second, "unet")
    assert base_mark(first, "text") is None


def test_a_base_whose_files_cannot_be_found_is_known_by_its_weights(tiny_base, other_base, monkeypatch):
    monkeypatch.setattr("synthaug.training.encoders.base_mark", lambda *_: None)

    marks = [Encoders(str(base)).mark("vae") for base in (tiny_base, tiny_base, other_base)]

    assert marks[0] == marks[1] != marks[2]
    assert len(marks[0]) == 64


def test_the_mark_of_one_files_text_changes_with_the_tokenizer_beside_it(tmp_path):
    base = shrunken("sd1", tmp_path)
    name = str(bare_file(base, tmp_path / "model.safetensors"))
    before = {part: base_mark(name, part) for part in ("text", "vae")}

    words = tmp_path / "tokenizer" / "merges.txt"
    words.write_text(words.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    assert base_mark(name, "text") not in (None, before["text"])
    assert base_mark(name, "vae") == before["vae"]


def test_brackets_in_a_caption_are_brackets(tiny_base):
    base = load_base(str(tiny_base), parts=("text",))
    entry = Encoders(str(tiny_base)).text("a (fish:1.5) BREAK on paper")

    assert entry["tokens"].tolist() == token_chunks("a (fish:1.5) BREAK on paper", base.tokenizer)[0]
    with torch.no_grad():
        assert torch.allclose(entry["states"], base.text_encoder(entry["tokens"][None])[0][0], atol=1e-6)


def short_of(memory: set[str], monkeypatch, error=None) -> None:
    """Let the memory of some devices be too small for any picture."""
    posterior = Encoders._posterior

    def limited(self, vae, picture):
        if vae.device.type in memory:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
        return posterior(self, vae, picture)

    monkeypatch.setattr(Encoders, "_posterior", limited)


def test_a_photo_that_the_card_does_not_hold_is_encoded_on_the_cpu_and_so_are_the_next(tiny_base, monkeypatch, capsys):
    picture = torch.rand(3, 32, 48) * 2 - 1
    expected = Encoders(str(tiny_base)).latents(picture, "a.jpg")
    short_of({"meta"}, monkeypatch)
    encoders = Encoders(str(tiny_base), device="meta")  # a device without memory

    found = [encoders.latents(picture, name) for name in ("a.jpg", "b.jpg")]

    assert all(torch.equal(a, b) for one in found for a, b in zip(one, expected, strict=True))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "a.jpg at 32 x 48 pixels does not fit into the memory of meta to be encoded (CUDA out of memory" in said[0]


def test_a_photo_that_fits_nowhere_is_a_sentence(tiny_base, monkeypatch):
    short_of({"meta", "cpu"}, monkeypatch)

    with pytest.raises(SettingError, match=r"a.jpg at 32 x 48 pixels does not: CUDA out of memory.*; use a smaller --data.size"):
        Encoders(str(tiny_base), device="meta").latents(torch.zeros(3, 32, 48), "a.jpg")


def test_another_failure_of_the_encoder_is_not_taken_for_want_of_memory(tiny_base, monkeypatch):
    short_of({"cpu"}, monkeypatch, RuntimeError("shapes cannot be multiplied"))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Encoders(str(tiny_base)).latents(torch.zeros(3, 32, 48), "a.jpg")
