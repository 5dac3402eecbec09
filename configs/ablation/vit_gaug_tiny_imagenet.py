# GAug without PRR.
_base_ = ['../vit/vit_tiny_imagenet.py']

model = dict(backbone=dict(gaug=True))
