# No position embedding.
_base_ = ['vit_base.py']

backbone = dict(pos_embed='none')
pretrained = dict(checkpoint='work_dirs/vit_nopos_base_imagenet/epoch_300.pth')
