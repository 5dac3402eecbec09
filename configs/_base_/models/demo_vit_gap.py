# No class token; the mean patch, normed after pooling, goes to the head.
_base_ = ['demo_vit.py']

backbone = dict(class_token=False)
pretraining = dict(out_type='avg_featmap')
