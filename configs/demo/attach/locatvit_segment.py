_base_ = [
    '../../_base_/models/demo_linear_decoder.py',
    '../../_base_/datasets/digit_scenes.py',
    '../../_base_/schedules/demo_decode_600.py',
    '../../_base_/runtime_demo_segment.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        backbone=dict(
            type='locat_mm.LocAtViT',
            arch=dict(embed_dim=64, depth=4, num_heads=2),
            img_size=48,
            patch_size=8,
            gaug=False,
            out_type='featmap',
            final_norm=False,
            frozen=True,
        ),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/demo_attach/attach/locatvit/seed0/classify/epoch_4.pth',
            prefix='backbone.',
        ),
    ),
)
