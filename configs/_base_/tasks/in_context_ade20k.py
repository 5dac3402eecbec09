# In-context segmentation on ADE20K (Hummingbird, Balažević et al. 2023): nothing is trained. Images
# and the bank's masks are resized to 224²; predictions are resized to the ground truth.
_base_ = ['../datasets/ade20k.py', '../segmentor.py']

# The last block's patch map, before the final norm and without PRR.
frozen_features = dict(out_type='featmap', final_norm=False, frozen=True)
image_size = (224, 224)
bank_steps = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='locat_mm.CheckAnnotations', num_classes=_base_.num_classes),
    dict(type='Resize', scale=image_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size),
    # The ground truth is not resized: metrics are taken at the image's own size.
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='locat_mm.CheckAnnotations', num_classes=_base_.num_classes),
    dict(type='PackSegInputs'),
]
bank = {
    **_base_.val_dataloader,
    'batch_size': 16,
    'dataset': {**_base_.train_dataloader.dataset, 'pipeline': bank_steps},
}
model = dict(
    _delete_=True,
    type='locat_mm.InContextSegmentor',
    data_preprocessor=_base_.model.data_preprocessor,
    num_classes=_base_.num_classes,
    num_neighbours=30,
    temperature=0.02,
)
test_dataloader = dict(batch_size=16, dataset=dict(pipeline=test_pipeline))
test_cfg = dict(_delete_=True, type='locat_mm.InContextTestLoop', bank_dataloader=bank)
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
tta_pipeline = None
