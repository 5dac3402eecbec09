# PRR without GAug.
_base_ = ['../locat/locatvit_base_imagenet.py']

model = dict(backbone=dict(gaug=False))
