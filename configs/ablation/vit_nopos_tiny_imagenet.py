# ViT without position embedding.
_base_ = ['../vit/vit_tiny_imagenet.py']

model = dict(backbone=dict(pos_embed='none'))
