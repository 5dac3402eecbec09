"""Small chunks for the CPU's attention backend, so that small inputs take all of its branches."""

import torch

from locat_mm.ops.backends import chunked

__all__ = ['set_chunks']


def set_chunks(monkeypatch, logits: int, min_queries: int) -> None:
    """Give both passes chunks of that many logits, and of at least that many queries."""
    for name in ('_FORWARD', '_BACKWARD'):
        chunk = getattr(chunked, name)
        chunk = chunk._replace(logits_per_thread=logits, min_queries=min_queries)
        monkeypatch.setattr(chunked, name, chunk)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
