# DINO: self-supervised training of a student and its moving average, the teacher. The teacher is
# the part to evaluate: prefix='teacher.module.backbone.'.
# The leaf gives the backbone's type and arch, and the widths of neck and head.
model = dict(
    type='locat_mm.DINO',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    # 'raw': PRR reads all final-normed tokens, and passes its [CLS] to the head.
    backbone=dict(img_size=224, patch_size=16, gaug=True, out_type='raw'),
    neck=dict(type='locat_mm.PatchRepresentationRefinement', pool='cls_token'),
    head=dict(
        type='locat_mm.DINOHead',
        out_channels=65536,
        hidden_channels=2048,
        bottleneck_channels=256,
    ),
    loss=dict(
        type='locat_mm.DINOLoss',
        student_temp=0.1,
        teacher_temp=0.04,
        warmup_teacher_temp=0.04,
        warmup_epochs=0,
        center_momentum=0.9,
    ),
    # The teacher's momentum rises from 0.996 to 1.
    base_momentum=0.004,
)
