# k-NN evaluation of DINO's teacher on digit_scenes' objects. Stands beside a task of DINO (whose
# pixels it takes), as validation and as test.
knn_data = dict(type='CustomDataset', data_root='data/digit_scenes/objects')
knn_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=10),
    dict(type='PackInputs'),
]
knn_loader = dict(
    batch_size=250,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
bank = dict(**knn_loader, dataset=dict(**knn_data, data_prefix='train', pipeline=knn_pipeline))
knn = dict(bank_dataloader=bank, backbone='teacher.module.backbone')
val_dataloader = dict(
    **knn_loader, dataset=dict(**knn_data, data_prefix='val', pipeline=knn_pipeline)
)
val_evaluator = dict(type='locat_mm.KNNAccuracy')
val_cfg = dict(type='locat_mm.KNNValLoop', **knn)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='locat_mm.KNNTestLoop', **knn)
