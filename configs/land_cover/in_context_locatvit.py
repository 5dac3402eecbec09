_base_ = [
    '../_base_/models/demo_in_context_segmentor.py',
    '../_base_/datasets/land_cover_scenes.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(mean=[119.5, 112.8, 87.5], std=[73.5, 68.2, 76.6]),
    backbone=dict(
        type='locat_mm.LocAtViT',
        img_size=32,
        patch_size=4,
        init_cfg=dict(checkpoint='work_dirs/locatvit_classify/epoch_5.pth', prefix='backbone.'),
    ),
    num_classes=7,
    # A quarter of the patches: seconds instead of a minute for each model.
    max_patches=28000,
)
# A bank of training scenes; nothing is trained.
test_cfg = dict(
    type='locat_mm.InContextTestLoop',
    bank_dataloader=dict(
        _base_.test_dataloader,
        dataset=dict(
            _base_.test_dataloader.dataset,
            data_prefix=_base_.train_dataloader.dataset.data_prefix,
        ),
    ),
)
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
