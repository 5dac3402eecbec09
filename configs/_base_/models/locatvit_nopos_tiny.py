# LocAt without position embedding.
_base_ = ['locatvit_tiny.py']

backbone = dict(pos_embed='none')
pretrained = dict(checkpoint='work_dirs/locatvit_nopos_tiny_imagenet/epoch_300.pth')
