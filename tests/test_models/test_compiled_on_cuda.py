"""torch.compile on a GPU that is not there: one graph, with the fused kernels as operators.

Fake tensors have a shape and a device but no memory: the graph is traced, and no kernel runs.
"""

import pytest
import timm
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import locat_mm
from locat_mm.models import LocAtViT
from locat_mm.ops.backends import triton

needs_triton = pytest.mark.skipif(not triton._HAS_TRITON, reason='Triton is not installed')
SMALL = dict(img_size=64, patch_size=8)


def locat_vit():
    arch = dict(embed_dim=64, depth=2, num_heads=2)
    return LocAtViT(arch=arch, out_type='raw', **SMALL)


def attached():
    arch = dict(embed_dim=64, depth=2, num_heads=2)
    return locat_mm.attach(timm.create_model('vit_tiny_patch16_224', **SMALL, **arch))


def to_fake_cuda(model):
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, x in tensors.items():
                if x is not None:
                    fake = torch.empty(x.shape, dtype=x.dtype, device='cuda')
                    tensors[name] = nn.Parameter(fake) if isinstance(x, nn.Parameter) else fake


@needs_triton
@pytest.mark.parametrize('make', [locat_vit, attached])
def test_one_graph_with_the_fused_kernels(make, monkeypatch):
    monkeypatch.setattr(triton, '_capability', lambda device: (9, 0))
    model, graphs = make(), []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with FakeTensorMode(allow_non_fake_inputs=True):
        to_fake_cuda(model)
        compiled = torch.compile(model, backend=keep, fullgraph=True)
        image = torch.empty(2, 3, 64, 64, device='cuda')
        for training in (False, True):
            torch._dynamo.reset()
            model.train(training)
            with torch.autocast('cuda', torch.bfloat16):
                compiled(image)
    assert len(graphs) == 2
    for graph in graphs:
        targets = [str(node.target) for node in graph.graph.nodes]
        assert targets.count('locat_mm.gaussian_attention.default') == 2
        assert targets.count('locat_mm.gaussian_parameters.default') == 2
