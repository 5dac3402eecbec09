_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtJumbo',
        arch='tiny',
        num_jumbo_tokens=6,
        gaug=False,
        out_type='cls_token',
        drop_path_rate=0.1,
    ),
    neck=None,
    head=dict(
        # Six class tokens side by side.
        in_channels=1152,
        # The bias is -ln 1000: at first, every class has a probability of 1/1000.
        init_cfg=dict(_delete_=True, type='Constant', layer='Linear', val=0.0, bias=-6.907755),
    ),
)
