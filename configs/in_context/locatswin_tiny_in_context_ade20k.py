_base_ = ['../_base_/models/locatswin_tiny.py', '../_base_/tasks/in_context_ade20k.py']

# Stage 2 has patches of 16 pixels, as ViT's.
model = dict(
    backbone={
        **_base_.backbone,
        **_base_.frozen_features,
        'out_indices': 2,
        'init_cfg': _base_.pretrained,
    },
)
