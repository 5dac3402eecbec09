# PASCAL VOC 2012 for in-context segmentation: a bank of training images, and the validation images
# as test. Images and the bank's masks are resized to 224².
dataset_source = (
    'PASCAL VOC 2012: download VOCtrainval_11-May-2012.tar from '
    'http://host.robots.ox.ac.uk/pascal/VOC/voc2012 and unpack it to data/VOCdevkit/VOC2012.'
)
data_root = 'data/VOCdevkit/VOC2012'
num_classes = 21

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    # The ground truth is not resized: predictions are compared at the image's own size.
    dict(type='LoadAnnotations'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PascalVOCDataset',
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=test_pipeline,
    ),
)
test_cfg = dict(
    type='locat_mm.InContextTestLoop',
    bank_dataloader=dict(
        batch_size=16,
        num_workers=4,
        persistent_workers=True,
        pin_memory=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='PascalVOCDataset',
            data_root=data_root,
            data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
            ann_file='ImageSets/Segmentation/train.txt',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
                dict(type='Resize', scale=(224, 224)),
                dict(type='PackSegInputs'),
            ],
        ),
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
