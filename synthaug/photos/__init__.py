"""The user's pictures: find them, read them upright, frame them, caption them."""

from synthaug.photos.folder import PhotoFolder, load_pictures, read_folder
from synthaug.photos.kohya import TrainingSet, read_training_set
from synthaug.photos.prepare import prepare

__all__ = ["PhotoFolder", "TrainingSet", "load_pictures", "prepare", "read_folder", "read_training_set"]
