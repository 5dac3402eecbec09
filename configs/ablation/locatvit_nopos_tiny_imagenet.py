# LocAtViT without position embedding.
_base_ = ['../locat/locatvit_tiny_imagenet.py']

model = dict(backbone=dict(pos_embed='none'))
