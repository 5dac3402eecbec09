_base_ = [
    '../../_base_/models/demo_classifier.py',
    '../../_base_/datasets/digit_objects.py',
    '../../_base_/schedules/demo_finetune_4e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

# GAug is attached to a trained ViT and starts without effect.
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
            out_type='raw',
        ),
    ),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth'),
)
