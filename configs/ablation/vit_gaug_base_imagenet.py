# GAug without PRR.
_base_ = ['../vit/vit_base_imagenet.py']

model = dict(backbone=dict(gaug=True))
