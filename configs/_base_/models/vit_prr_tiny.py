# PRR without GAug.
_base_ = ['locatvit_tiny.py']

backbone = dict(gaug=False)
pretrained = dict(checkpoint='work_dirs/vit_prr_tiny_imagenet/epoch_300.pth')
