# No class token: the mean of the patches goes to the head.
_base_ = ['../vit/vit_tiny_imagenet.py']

model = dict(backbone=dict(class_token=False, out_type='avg_featmap'))
