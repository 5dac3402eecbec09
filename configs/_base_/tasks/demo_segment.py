# digit_scenes' scenes: a linear decoder on the frozen backbone. ADE20K's part in the demo.
_base_ = ['../segmentation.py', '../linear_decoding.py']

dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/scenes'
num_classes = 11
metainfo = dict(
    classes=('background', *'0123456789'),
    palette=[
        [40, 40, 40],
        [230, 25, 75],
        [60, 180, 75],
        [255, 225, 25],
        [0, 130, 200],
        [245, 130, 48],
        [145, 30, 180],
        [70, 240, 240],
        [240, 50, 230],
        [210, 245, 60],
        [250, 190, 212],
    ],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
test_pipeline = train_pipeline
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=ratio, keep_ratio=True)
                for ratio in (0.75, 1.0, 1.25)
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
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
    num_workers=1,
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.png',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = {**_base_.val_dataloader, **val_dataloader}

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[64.0, 64.0, 64.0],
        size=(72, 72),
        test_cfg=dict(size_divisor=8),
    ),
    decode_head=dict(
        channels=128,
        num_classes=num_classes,
    ),
)

max_iters = 600
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=3e-3,
        total_steps=max_iters,
        pct_start=0.25,
        anneal_strategy='linear',
        div_factor=1e4,
        final_div_factor=1e4,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=200, max_keep_ckpts=2))
