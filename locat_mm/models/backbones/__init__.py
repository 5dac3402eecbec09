from .locat import LocAt
from .locat_jumbo import LocAtJumbo
from .locat_rope_vit import LocAtRoPEViT
from .locat_swin import LocAtSwin
from .locat_vit import LocAtViT
from .timm_backbone import TIMMBackbone

__all__ = ['LocAt', 'LocAtJumbo', 'LocAtRoPEViT', 'LocAtSwin', 'LocAtViT', 'TIMMBackbone']
