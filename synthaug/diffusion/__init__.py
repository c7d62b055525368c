"""The papers: schedules, targets, weights, samplers, guidance. Torch only."""
