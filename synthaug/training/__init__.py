"""Training: a LightningModule, a LightningDataModule, callbacks, and the command ``synthaug fit``."""

from synthaug.training.callbacks import PlainProgress, SampleGrid
from synthaug.training.copy_rate import CopyRate
from synthaug.training.lora_training import LoraShape, LoraTraining
from synthaug.training.photo_data import PhotoData
from synthaug.training.saving import SaveLora
from synthaug.training.views import Views

__all__ = ["CopyRate", "LoraShape", "LoraTraining", "PhotoData", "PlainProgress", "SampleGrid", "SaveLora", "Views"]
