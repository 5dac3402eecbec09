# digit_scenes' scenes for in-context segmentation: a bank of training images, and the validation
# images as test.
dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/scenes'
num_classes = 11

test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=dict(classes=('background', *'0123456789')),
        img_suffix='.png',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_cfg = dict(
    type='locat_mm.InContextTestLoop',
    bank_dataloader=dict(
        test_dataloader,
        dataset=dict(
            test_dataloader['dataset'],
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        ),
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
