# land_cover's scenes with masks. Value 255 (water, wetlands, towns) has no label.
dataset_source = 'land_cover: run python tools/dataset_converters/land_cover.py'
data_root = 'data/land_cover/scenes'
num_classes = 7
metainfo = dict(
    classes=('barren', 'cropland', 'forest', 'grassland', 'savanna', 'shrubland', 'snow'),
    palette=[
        [220, 180, 120],
        [240, 200, 60],
        [0, 100, 0],
        [120, 220, 120],
        [160, 160, 80],
        [180, 140, 120],
        [255, 255, 255],
    ],
)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
train_pipeline = [
    *test_pipeline[:-1],
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    test_pipeline[-1],
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.png',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.png',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
