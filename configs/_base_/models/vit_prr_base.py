# PRR without GAug.
_base_ = ['locatvit_base.py']

backbone = dict(gaug=False)
pretrained = dict(checkpoint='work_dirs/vit_prr_base_imagenet/epoch_300.pth')
