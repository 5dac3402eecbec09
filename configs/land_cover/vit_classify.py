_base_ = ['./locatvit_classify.py']

model = dict(backbone=dict(gaug=False, out_type='cls_token'), neck=None)
