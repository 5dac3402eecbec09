# folder.py for GeoTIFF images and masks, all bands. The leaf gives data_root, classes, in_channels,
# mean and std; docs/channels.md has a whole one, and how to choose bands.
_base_ = ['folder.py']

crop_size = (512, 512)
# Objects have the same size in all tiles of one ground resolution, so tiles are not resized.
train_pipeline = [
    dict(type='locat_mm.LoadGeoTIFF'),
    dict(type='locat_mm.LoadGeoTIFFAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical']),
    dict(type='locat_mm.RandomIntensity'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='locat_mm.LoadGeoTIFF'),
    dict(type='locat_mm.LoadGeoTIFFAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = None
train_dataloader = dict(
    dataset=dict(img_suffix='.tif', seg_map_suffix='.tif', pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(img_suffix='.tif', seg_map_suffix='.tif', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
