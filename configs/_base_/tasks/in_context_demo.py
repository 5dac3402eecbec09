# In-context segmentation on digit_scenes' scenes (Hummingbird, Balažević et al. 2023): nothing is
# trained.
_base_ = ['../segmentation.py', '../segmentor.py']

dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/scenes'
num_classes = 11
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
scenes = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=('background', *'0123456789')),
    img_suffix='.png',
    pipeline=pipeline,
)

# The last block's patch map, before the final norm and without PRR.
frozen_features = dict(out_type='featmap', final_norm=False, frozen=True)
loader = {**_base_.val_dataloader, 'batch_size': 16, 'num_workers': 1}
bank = {
    **loader,
    'dataset': dict(
        **scenes,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    ),
}
model = dict(
    _delete_=True,
    type='locat_mm.InContextSegmentor',
    data_preprocessor={
        **_base_.model.data_preprocessor,
        'mean': [127.5, 127.5, 127.5],
        'std': [64.0, 64.0, 64.0],
    },
    num_classes=num_classes,
    num_neighbours=30,
    temperature=0.02,
)
test_dataloader = {
    **loader,
    'dataset': dict(
        **scenes,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    ),
}
test_cfg = dict(_delete_=True, type='locat_mm.InContextTestLoop', bank_dataloader=bank)
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
