"""What frozen features know: evaluations by nearest neighbours."""

from .in_context import InContextSegmentor, InContextTestLoop
from .knn import KNNAccuracy, KNNTestLoop, KNNValLoop, knn_predict

__all__ = [
    'InContextSegmentor',
    'InContextTestLoop',
    'KNNAccuracy',
    'KNNTestLoop',
    'KNNValLoop',
    'knn_predict',
]
