# In-context segmentation on PASCAL VOC 2012 (Hummingbird, Balažević et al. 2023): nothing is
# trained. Images and the bank's masks are resized to 224²; predictions are resized to the ground
# truth.
_base_ = ['../segmentation.py', '../segmentor.py']

dataset_source = (
    'PASCAL VOC 2012: download VOCtrainval_11-May-2012.tar from '
    'http://host.robots.ox.ac.uk/pascal/VOC/voc2012 and unpack it to data/VOCdevkit/VOC2012.'
)
data_root = 'data/VOCdevkit/VOC2012'
num_classes = 21
voc = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
)

# The last block's patch map, before the final norm and without PRR.
frozen_features = dict(out_type='featmap', final_norm=False, frozen=True)
image_size = (224, 224)
bank_steps = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='Resize', scale=image_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size),
    # The ground truth is not resized: metrics are taken at the image's own size.
    dict(type='LoadAnnotations'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='PackSegInputs'),
]
loader = {**_base_.val_dataloader, 'batch_size': 16, 'num_workers': 4, 'pin_memory': True}
bank = {
    **loader,
    'dataset': dict(**voc, ann_file='ImageSets/Segmentation/train.txt', pipeline=bank_steps),
}
model = dict(
    _delete_=True,
    type='locat_mm.InContextSegmentor',
    data_preprocessor=_base_.model.data_preprocessor,
    num_classes=num_classes,
    num_neighbours=30,
    temperature=0.02,
)
test_dataloader = {
    **loader,
    'dataset': dict(**voc, ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline),
}
test_cfg = dict(_delete_=True, type='locat_mm.InContextTestLoop', bank_dataloader=bank)
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
