# digit_scenes' objects: image labels alone. ImageNet's part in the demo.
_base_ = ['../pretraining.py']

dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/objects'
num_classes = 10

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackInputs'),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='val', pipeline=test_pipeline
    ),
)
test_dataloader = {**_base_.val_dataloader, **val_dataloader}
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

model = dict(
    data_preprocessor=dict(
        num_classes=num_classes, mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0]
    ),
    head=dict(
        num_classes=num_classes,
        # torch's own, larger initialisation: with 10 classes the usual 0.02 costs an epoch.
        init_cfg=None,
        loss=dict(type='CrossEntropyLoss'),
    ),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=1,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=4)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=2))
