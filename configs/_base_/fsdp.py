# Parameters, gradients and optimizer state spread over all devices. Goes beside any leaf:
# _base_ = ['LEAF.py', '../_base_/fsdp.py']. Its checkpoints are those of the leaf.
runner_type = 'FlexibleRunner'
strategy = dict(type='locat_mm.FullyShardStrategy')
