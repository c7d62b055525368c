"""Data sets for a training loop: drawn on demand, varied from photos, written to and read from shards.

Each module is imported by itself: reading shards needs no diffusion model and loads none.
"""

__all__: list[str] = []
