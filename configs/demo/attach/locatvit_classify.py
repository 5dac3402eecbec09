_base_ = [
    '../../_base_/models/demo_classifier.py',
    '../../_base_/datasets/digit_objects.py',
    '../../_base_/schedules/demo_classify_8e.py',
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
# Four more epochs for a trained classifier, with a small learning rate.
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    # The new GAug parameters learn faster than the trained ones.
    paramwise_cfg=dict(custom_keys={'.gaug.': dict(lr_mult=10.0)}),
)
train_cfg = dict(max_epochs=4)
