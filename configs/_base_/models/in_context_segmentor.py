# In-context segmentation (Hummingbird, Balažević et al. 2023): nothing is trained. The labels of a
# patch come from its nearest neighbours among the patches of the training images.
# Number of classes: ADE20K's. The leaf gives the backbone's type, arch and weights.
model = dict(
    type='locat_mm.InContextSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # ImageNet's mean and std for every model.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(),
    ),
    # The last block's patch map, before the final norm and without PRR.
    backbone=dict(
        img_size=224,
        patch_size=16,
        gaug=True,
        out_type='featmap',
        final_norm=False,
        frozen=True,
        init_cfg=dict(type='Pretrained'),
    ),
    num_classes=150,
    num_neighbours=30,
    temperature=0.02,
)
