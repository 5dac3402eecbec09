# LocAtViT without position embedding.
_base_ = ['../locat/locatvit_base_imagenet.py']

model = dict(backbone=dict(pos_embed='none'))
