# LocAt without position embedding.
_base_ = ['locatvit_base.py']

backbone = dict(pos_embed='none')
pretrained = dict(checkpoint='work_dirs/locatvit_nopos_base_imagenet/epoch_300.pth')
