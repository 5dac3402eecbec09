"""Self-supervised learning."""

from .dense_dino import DenseDINO
from .dino import DINO
from .dino_head import DINOHead
from .dino_loss import DINOLoss

__all__ = ['DINO', 'DINOHead', 'DINOLoss', 'DenseDINO']
