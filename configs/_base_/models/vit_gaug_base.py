# GAug without PRR.
_base_ = ['vit_base.py']

backbone = dict(gaug=True)
pretrained = dict(checkpoint='work_dirs/vit_gaug_base_imagenet/epoch_300.pth')
