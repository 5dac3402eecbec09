_base_ = ['../locatvit_classify.py']

model = dict(backbone=dict(patch_size=4))
