from __future__ import annotations

import pytest
import torch
from checkpoints import bare_file, shrunken
from safetensors.torch import load_file, save_file

from synthaug.errors import SettingError, UnusableFileError
from synthaug.models.load import load_base
from synthaug.models.stated import recorded_prediction

V_YAML = "model:\n  params:\n    parameterization: v\n"
EPS_YAML = "model:\n  params:\n    linear_start: 0.00085\n"
V_SCALING_YAML = """model:
  params:
    denoiser_config:
      params:
        scaling_config: {target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    return {family: bare_file(shrunken(family, folder), folder / f"{family}.safetensors") for family in ("sd1", "sd2", "sdxl")}


@pytest.fixture
def made(files, tmp_path):
    """Makes a file of a family that says something of itself."""

    def make(family, *, metadata=None, sidecar=None, **marks):
        path = tmp_path / "model.safetensors"
        save_file({**load_file(files[family]), **marks}, path, metadata)
        if sidecar is not None:
            path.with_suffix(".yaml").write_text(sidecar)
        return str(path)

    return make


def read(path, **settings):
    return load_base(path, parts=(), **settings)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "epsilon"),
        ({"v_pred": torch.zeros(0)}, "v_prediction"),
        ({"metadata": {"modelspec.prediction_type": "v"}}, "v_prediction"),
        ({"metadata": {"modelspec.prediction_type": "epsilon"}}, "epsilon"),
        ({"sidecar": V_YAML}, "v_prediction"),
        ({"sidecar": V_SCALING_YAML}, "v_prediction"),
        ({"sidecar": EPS_YAML}, "epsilon"),
    ],
)
def test_what_is_predicted_is_read_from_wherever_the_file_says_it(made, said, expected):
    assert read(made("sdxl", **said)).prediction_type == expected


def test_a_mark_says_that_the_schedule_ends_in_noise_alone(made):
    assert read(made("sdxl", v_pred=torch.zeros(0), ztsnr=torch.zeros(0))).schedule["rescale_betas_zero_snr"]
    assert not read(made("sdxl", v_pred=torch.zeros(0))).schedule["rescale_betas_zero_snr"]


def test_sd_2_without_a_word_is_taken_for_the_larger_model_and_that_is_said(made, caplog):
    base = read(made("sd2"))

    assert (base.prediction_type, base.size) == ("v_prediction", (768, 768))
    assert "does not say what it predicts, and SD 2.x has both; v_prediction at 768 pixels is assumed" in caplog.text
    assert "put its configuration beside it as model.yaml" in caplog.text


@pytest.mark.parametrize(
    ("settings", "sidecar", "expected"),
    [({"prediction": "epsilon"}, None, ("epsilon", 512)), ({"prediction": "v_prediction"}, None, ("v_prediction", 768)),
     ({}, EPS_YAML, ("epsilon", 512)), ({}, V_YAML, ("v_prediction", 768))],
)  # fmt: skip
def test_sd_2_is_what_the_user_or_the_configuration_beside_it_says(made, caplog, settings, sidecar, expected):
    base = read(made("sd2", sidecar=sidecar), **settings)

    assert (base.prediction_type, base.size[0]) == expected
    assert caplog.messages == []


def test_asking_for_v_of_a_base_that_says_epsilon_is_refused(made, tiny_base):
    file = made("sdxl", metadata={"modelspec.prediction_type": "epsilon"})

    with pytest.raises(SettingError, match=r"'v_prediction' was asked of .*, but its modelspec.prediction_type \(epsilon\) says otherwise"):
        read(file, prediction="v_prediction")
    with pytest.raises(
        SettingError, match=r"'v_prediction' was asked of .*tiny, but its scheduler \(epsilon\) says otherwise; leave it out"
    ):
        read(str(tiny_base), prediction="v_prediction")
    with pytest.raises(SettingError, match=r"'epsilon' was asked of pocket, but its scheduler \(v_prediction\) says otherwise"):
        read("pocket", prediction="epsilon")


def test_asking_for_what_a_base_says_is_let_through(tiny_base):
    assert read(str(tiny_base), prediction="epsilon").prediction_type == "epsilon"
    assert read("pocket", prediction="v_prediction").prediction_type == "v_prediction"


def test_a_file_that_contradicts_itself_is_refused_until_the_user_decides(made):
    file = made("sdxl", metadata={"modelspec.prediction_type": "epsilon"}, v_pred=torch.zeros(0))

    with pytest.raises(UnusableFileError, match=r"must say one thing .* its weight v_pred \(v_prediction\) and its modelspec.*\(epsilon\)"):
        read(file)
    assert read(file, prediction="v_prediction").prediction_type == "v_prediction"


def test_another_prediction_is_refused(made):
    with pytest.raises(UnusableFileError, match=r"must predict epsilon or v, of .* its modelspec.prediction_type says 'sample'"):
        read(made("sd1", metadata={"modelspec.prediction_type": "sample"}))


@pytest.mark.parametrize("sidecar", ["model: [", "other: 1", "text", "model:\n  params: 3\n", "model:\n  params: text\n"])
def test_a_configuration_that_cannot_be_read_is_named(made, sidecar):
    with pytest.raises(UnusableFileError, match=r"beside a checkpoint must have model.params, .*model.yaml has none that can be read"):
        read(made("sd1", sidecar=sidecar))


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"synthaug.base": "b", "modelspec.prediction_type": "v"}, "v_prediction"),
        ({"synthaug.base": "b", "modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.prediction_type": "v"}, None),
        ({"synthaug.base": "b"}, None),
    ],
    ids=["v", "epsilon", "another tool's", "an old one of ours"],
)
def test_a_lora_file_says_what_its_base_predicts(lora, expected):
    assert recorded_prediction(lora) == expected
