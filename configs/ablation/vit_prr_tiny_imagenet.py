# PRR without GAug.
_base_ = ['../locat/locatvit_tiny_imagenet.py']

model = dict(backbone=dict(gaug=False))
