"""The user's pictures: find them, read them upright, frame them, caption them."""

from synthaug.photos.folder import PhotoFolder, load_pictures, read_folder
from synthaug.photos.prepare import prepare

__all__ = ["PhotoFolder", "load_pictures", "prepare", "read_folder"]
