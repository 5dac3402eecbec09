# LocAtViT with rotated kernels.
_base_ = ['../locat/locatvit_tiny_imagenet.py']

model = dict(backbone=dict(kernel='rotated'))
