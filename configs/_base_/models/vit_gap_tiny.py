# No class token; the mean patch, normed after pooling, goes to the head.
_base_ = ['vit_tiny.py']

backbone = dict(class_token=False)
pretraining = dict(out_type='avg_featmap')
pretrained = dict(checkpoint='work_dirs/vit_gap_tiny_imagenet/epoch_300.pth')
