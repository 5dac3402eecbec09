_base_ = ['../ablation/vit_fixed_classify.py']

# 16 squared patches are as wide in the image as the ablation's 4: a patch has half the side.
model = dict(backbone=dict(variance=16.0, backbone=dict(patch_size=4)))
