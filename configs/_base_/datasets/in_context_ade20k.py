# ADE20K for in-context segmentation: a bank of training images, and the validation images as test.
# Images and the bank's masks are resized to 224².
_base_ = ['ade20k.py']

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    # The ground truth is not resized: predictions are compared at the image's own size.
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='locat_mm.CheckAnnotations', num_classes=150),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(batch_size=16, dataset=dict(pipeline=test_pipeline))
test_cfg = dict(
    type='locat_mm.InContextTestLoop',
    bank_dataloader=dict(
        batch_size=16,
        num_workers=4,
        persistent_workers=True,
        pin_memory=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='ADE20KDataset',
            data_root='data/ade/ADEChallengeData2016',
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
                dict(type='locat_mm.CheckAnnotations', num_classes=150),
                dict(type='Resize', scale=(224, 224)),
                dict(type='PackSegInputs'),
            ],
        ),
    ),
)
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
tta_pipeline = None
