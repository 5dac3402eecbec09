# No position embedding.
_base_ = ['demo_vit.py']

backbone = dict(pos_embed='none')
