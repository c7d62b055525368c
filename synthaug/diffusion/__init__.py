"""Formulas of the papers, torch only: schedule, objective, guidance."""

from synthaug.diffusion.guidance import guided
from synthaug.diffusion.objective import Target, min_snr_weight, noised, offset_noise, target_of, v_target
from synthaug.diffusion.schedule import NoiseSchedule, schedule_of

__all__ = ["NoiseSchedule", "Target", "guided", "min_snr_weight", "noised", "offset_noise", "schedule_of", "target_of", "v_target"]
