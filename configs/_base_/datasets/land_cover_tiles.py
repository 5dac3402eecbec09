# land_cover's tiles with image labels, read as digit_objects.py reads its images. A tile may be
# mirrored: it is seen from above.
_base_ = ['digit_objects.py']

dataset_source = 'land_cover: run python tools/dataset_converters/land_cover.py'
data_root = 'data/land_cover/tiles'
num_classes = 7

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackInputs'),
]
train_pipeline = [
    *test_pipeline[:-1],
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    test_pipeline[-1],
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
