"""The verdict: a small detector trained without and with the synthetic images, tested on photos that neither has seen."""

from synthaug.evaluation.detector import Detector, train_detector
from synthaug.evaluation.gain import evaluate_gain
from synthaug.evaluation.metrics import auroc, average_precision
from synthaug.evaluation.report import Gain

__all__ = ["Detector", "Gain", "auroc", "average_precision", "evaluate_gain", "train_detector"]
