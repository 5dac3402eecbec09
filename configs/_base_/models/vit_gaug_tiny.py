# GAug without PRR.
_base_ = ['vit_tiny.py']

backbone = dict(gaug=True)
pretrained = dict(checkpoint='work_dirs/vit_gaug_tiny_imagenet/epoch_300.pth')
