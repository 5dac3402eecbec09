_base_ = ['../vit_classify.py']

model = dict(backbone=dict(patch_size=4))
