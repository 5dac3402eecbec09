# Runtime of segmentors (mmseg): scope, hooks, logging.
default_scope = 'mmseg'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='locat_mm.SafeCheckpointHook', by_epoch=False, interval=2000, max_keep_ckpts=3
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    exact_resume=dict(type='locat_mm.ExactResumeHook'),
    non_finite=dict(type='locat_mm.NonFiniteHook'),
    data_guard=dict(type='locat_mm.DataGuardHook'),
    visualization=dict(type='SegVisualizationHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='SegLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')]
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
# Fixed: the data loader is built before a resumed run restores its seed.
randomness = dict(seed=0, deterministic=False)
tta_model = dict(type='SegTTAModel')
