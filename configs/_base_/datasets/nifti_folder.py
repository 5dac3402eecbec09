# folder.py for NIfTI volumes and their labels: slices along the third axis, all channels. The leaf
# gives data_root, classes, in_channels, mean and std, for CT also CTWindow behind the loading;
# docs/channels.md has a whole one.
_base_ = ['folder.py']

crop_size = (512, 512)
train_pipeline = [
    dict(type='locat_mm.LoadNIfTI'),
    dict(type='locat_mm.LoadNIfTIAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.95),
    dict(type='RandomFlip', prob=0.5),
    dict(type='locat_mm.RandomIntensity'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='locat_mm.LoadNIfTI'),
    dict(type='locat_mm.LoadNIfTIAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = None
train_dataloader = dict(
    dataset=dict(
        type='locat_mm.NIfTISlices',
        img_suffix='.nii.gz',
        seg_map_suffix='.nii.gz',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='locat_mm.NIfTISlices',
        img_suffix='.nii.gz',
        seg_map_suffix='.nii.gz',
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
