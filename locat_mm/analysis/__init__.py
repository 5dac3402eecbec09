"""What a vision transformer computes for an image: attention, Gaussians, similarities, costs.

:class:`Recorder` records one forward pass. :class:`locat_mm.analysis.inspection.Inspector` does so
from a config and a checkpoint. :mod:`locat_mm.analysis.figures` and
:mod:`locat_mm.analysis.gaussians` draw the result. :mod:`locat_mm.analysis.complexity` counts
parameters and operations.
"""

from .gaug_statistics import record_gaug_statistics
from .measures import attention_weights, cls_similarity, refinement_weights
from .recording import LayerRecord, Recorder
from .structure import AttentionLayer, class_tokens, find_backbone, find_layers

__all__ = [
    'AttentionLayer',
    'LayerRecord',
    'Recorder',
    'attention_weights',
    'class_tokens',
    'cls_similarity',
    'find_backbone',
    'find_layers',
    'record_gaug_statistics',
    'refinement_weights',
]
