# land_cover's scenes with masks, read as digit_scenes.py reads its scenes. Value 255 (water,
# wetlands, towns) has no label.
_base_ = ['digit_scenes.py']

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
    batch_size=8, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=16, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
