"""The user's pictures: find them, read them upright, look them over, frame them, caption them."""

from synthaug.photos.folder import PhotoFolder, load_pictures, read_folder
from synthaug.photos.kohya import TrainingSet, read_training_set
from synthaug.photos.prepare import prepare
from synthaug.photos.report import PhotoReport, report_on

__all__ = ["PhotoFolder", "PhotoReport", "TrainingSet", "load_pictures", "prepare", "read_folder", "read_training_set", "report_on"]
