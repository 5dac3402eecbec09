from .locat import LocAt
from .locat_jumbo import LocAtJumbo
from .locat_rope_vit import LocAtRoPEViT
from .locat_swin import LocAtSwin
from .locat_vit import LocAtViT

__all__ = ['LocAt', 'LocAtJumbo', 'LocAtRoPEViT', 'LocAtSwin', 'LocAtViT']
