# LocAtViT with rotated kernels.
_base_ = ['../locat/locatvit_base_imagenet.py']

model = dict(backbone=dict(kernel='rotated'))
