"""Self-supervised learning."""

from .dino import DINO
from .dino_head import DINOHead
from .dino_loss import DINOLoss

__all__ = ['DINO', 'DINOHead', 'DINOLoss']
