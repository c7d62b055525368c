"""LoRA: the layers on a network, and the file that is the only link between training and drawing."""

from synthaug.lora.file import LoraFile, SeenPhoto
from synthaug.lora.layers import PRESETS, LoraLayer, fuse, put_on, target_paths, trained_layers, unfuse

__all__ = ["PRESETS", "LoraFile", "LoraLayer", "SeenPhoto", "fuse", "put_on", "target_paths", "trained_layers", "unfuse"]
