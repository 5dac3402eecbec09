# No position embedding.
_base_ = ['vit_tiny.py']

backbone = dict(pos_embed='none')
pretrained = dict(checkpoint='work_dirs/vit_nopos_tiny_imagenet/epoch_300.pth')
