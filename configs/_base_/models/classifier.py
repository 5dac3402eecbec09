# Image classifier with LocAt: GAug in every attention layer of the backbone, PRR as the neck.
# The leaf gives the backbone's type and arch, and the widths of neck and head.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True
    ),
    # 'raw': PRR reads all final-normed tokens, and passes its [CLS] to the head.
    backbone=dict(img_size=224, patch_size=16, gaug=True, out_type='raw'),
    neck=dict(type='locat_mm.PatchRepresentationRefinement', pool='cls_token'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
