# k-NN evaluation of DINO's teacher on ImageNet-1K, as DINO does it: 224² from the centre of 256,
# the class token, 10, 20, 100 and 200 neighbours, temperature 0.07. Stands beside a task of DINO
# (whose pixels it takes), as validation and as test.
knn_data = dict(type='ImageNet', data_root='data/imagenet')
knn_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=1000),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
knn_loader = dict(
    batch_size=128,
    num_workers=8,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
bank = dict(**knn_loader, dataset=dict(**knn_data, split='train', pipeline=knn_pipeline))
knn = dict(
    bank_dataloader=bank,
    backbone='teacher.module.backbone',
    k=(10, 20, 100, 200),
    temperature=0.07,
)
val_dataloader = dict(**knn_loader, dataset=dict(**knn_data, split='val', pipeline=knn_pipeline))
val_evaluator = dict(type='locat_mm.KNNAccuracy', topk=(1, 5))
val_cfg = dict(type='locat_mm.KNNValLoop', **knn)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='locat_mm.KNNTestLoop', **knn)
