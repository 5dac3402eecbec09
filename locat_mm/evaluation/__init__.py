"""Evaluation of frozen features by nearest neighbours: k-NN and in-context segmentation."""

from .in_context_loop import InContextTestLoop
from .in_context_segmentor import InContextSegmentor
from .knn_accuracy import KNNAccuracy
from .knn_loops import KNNTestLoop, KNNValLoop
from .nearest import knn_predict

__all__ = [
    'InContextSegmentor',
    'InContextTestLoop',
    'KNNAccuracy',
    'KNNTestLoop',
    'KNNValLoop',
    'knn_predict',
]
