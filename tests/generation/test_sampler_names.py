from __future__ import annotations

import pytest

from synthaug.diffusion.sigmas import COURSES
from synthaug.errors import SettingError
from synthaug.generation.sampler_names import SAMPLERS, SCHEDULES, automatic_schedule, split_sampler, takes_eta


@pytest.mark.parametrize(
    ("typed", "schedule", "meant"),
    [
        ("DPM++ 2M", "Automatic", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M Karras", "Automatic", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M Karras", "Karras", ("DPM++ 2M", "Karras")),
        ("dpm++ 2m  KARRAS", "karras", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Heun Exponential", "Automatic", ("DPM++ 2M SDE Heun", "Exponential")),
        ("DPM++ 2M SDE Heun", "Automatic", ("DPM++ 2M SDE Heun", "Automatic")),
        ("DPM++ 3M SDE Exponential", "Automatic", ("DPM++ 3M SDE", "Exponential")),
        ("DPM++ 2S a Karras", "Automatic", ("DPM++ 2S a", "Karras")),
        ("DPM2 a Karras", "Automatic", ("DPM2 a", "Karras")),
        ("LMS Karras", "Automatic", ("LMS", "Karras")),
        ("Euler SGM Uniform", "Automatic", ("Euler", "SGM Uniform")),
        ("DDIM", "DDIM", ("DDIM", "DDIM")),
        ("k_dpmpp_2m", "sgm_uniform", ("DPM++ 2M", "SGM Uniform")),
        ("k_dpmpp_2m_ka", "automatic", ("DPM++ 2M", "Karras")),
        ("k_euler_a", "kl_optimal", ("Euler a", "KL Optimal")),
        ("k_euler_ancestral", "align_your_steps", ("Euler a", "Align Your Steps")),
        ("k_dpm_2_a", "polyexponential", ("DPM2 a", "Polyexponential")),
        ("k_dpm_2", "ddim", ("DPM2", "DDIM")),
        ("dpmpp_2s_ancestral", "normal", ("DPM++ 2S a", "Normal")),
        ("dpmpp_sde", "beta", ("DPM++ SDE", "Beta")),
        ("uni_pc", "simple", ("UniPC", "Simple")),
        ("plms", "AYS", ("PLMS", "Align Your Steps")),
        ("PNDM", "Automatic", ("PLMS", "Automatic")),
        ("dpmpp_sde_gpu", "Automatic", ("DPM++ SDE", "Automatic")),
        ("dpmpp_2m_sde_gpu", "karras", ("DPM++ 2M SDE", "Karras")),
        ("dpmpp_2m_sde_heun_gpu", "Automatic", ("DPM++ 2M SDE Heun", "Automatic")),
        ("dpmpp_3m_sde_gpu exponential", "Automatic", ("DPM++ 3M SDE", "Exponential")),
    ],
)
def test_what_people_type_is_understood(typed, schedule, meant):
    assert split_sampler(typed, schedule) == meant


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_found_under_its_own_name_alone_and_with_every_schedule(name):
    assert split_sampler(name) == (name, "Automatic")
    for schedule in SCHEDULES:
        assert split_sampler(f"{name} {schedule}") == (name, schedule)
        assert split_sampler(name, schedule) == (name, schedule)


@pytest.mark.parametrize("typed", ["DPM adaptive", "Karras", "", "Eulera b", "uni_pc_bh2", "euler_gpu", "DPM++ 2M Karras Karras"])
def test_an_unknown_sampler_is_refused_with_those_there_are(typed):
    with pytest.raises(SettingError, match=r"unknown sampler '.*'; choose one of: DDIM, DDPM, DEIS, DPM\+\+ 2M, .*UniPC"):
        split_sampler(typed)


def test_an_unknown_schedule_is_refused_with_those_there_are():
    with pytest.raises(SettingError, match="unknown schedule 'turbo'; choose one of: Align Your Steps, Automatic, Beta, DDIM"):
        split_sampler("Euler", "turbo")


def test_two_schedules_for_one_run_are_refused():
    with pytest.raises(SettingError, match=r"one schedule, got 'DPM.. 2M Karras' and 'exponential'; leave one of them out"):
        split_sampler("DPM++ 2M Karras", "exponential")


def test_automatic_is_the_schedule_of_a1111_except_where_a_base_begins_in_noise_alone():
    noisy = {"rescale_betas_zero_snr": True}

    stock = {name: automatic_schedule(name, {}) for name in SAMPLERS}

    assert {name for name, its in stock.items() if its == "Karras"} == {"DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE"}
    assert {name for name, its in stock.items() if its == "Exponential"} == {"DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"}
    assert {automatic_schedule(name, noisy) for name in SAMPLERS} == {"Uniform", "SGM Uniform", "Simple"}
    assert set(stock.values()) <= set(COURSES)


def test_samplers_with_a_share_of_noise_are_known():
    assert {name for name in SAMPLERS if takes_eta(name)} == {
        "Euler a", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DDIM", "TCD",
    }  # fmt: skip
