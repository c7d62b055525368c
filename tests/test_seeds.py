from __future__ import annotations

from synthaug.seeds import seed_for


def test_a_seed_is_the_same_on_every_machine():
    # blake2b of "7/noise/3", worked out with: printf 7/noise/3 | b2sum -l 64, and halved
    assert seed_for(7, "noise", 3) == int("afcba4560ea0b110", 16) >> 1


def test_no_two_of_many_seeds_are_equal_and_all_fit_into_63_bits():
    seeds = [seed_for(run, name, index) for run in range(10) for name in ("noise", "words") for index in range(500)]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_next_run_is_not_this_run_shifted():
    assert not {seed_for(0, "noise", index) for index in range(100)} & {seed_for(1, "noise", index) for index in range(100)}
