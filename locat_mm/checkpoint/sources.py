"""Sources of weights: local files, the Hugging Face hub, timm's pretrained models."""

import difflib
import io
import logging
import os
import re
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor

from . import reading
from .names import to_openmmlab
from .reading import read_content, read_file, unwrap

__all__ = [
    'ReadAhead',
    'how_to_place',
    'load_from_locat_mm',
    'read_state_dict',
    'trust_checkpoints',
]

#: Argument of torch.load.
MapLocation = str | torch.device | dict[str, str] | Callable | None

#: The first one found is used.
_WEIGHT_FILES = ('model.safetensors', 'pytorch_model.bin')


def read_state_dict(source: str | Path, map_location: MapLocation = 'cpu') -> dict[str, Tensor]:
    """Read the tensors of a checkpoint without executing a pickle.

    Args:
        source: a local ``.safetensors`` or a file of ``torch.save`` (a state dict, possibly
            under ``state_dict`` or ``model``); ``hf-hub:OWNER/NAME`` or
            ``hf-hub:OWNER/NAME@REVISION`` for a repository of the Hugging Face hub;
            ``timm:NAME`` for a pretrained model of timm, with timm's current names;
            ``mmpretrain:SOURCE`` for official weights of one of these sources, under the names
            of an mmpretrain classifier. Files in the hub's cache are used without network access.
        map_location: as in ``torch.load``.

    Returns:
        name -> tensor, without a leading ``module.``.

    Raises:
        FileNotFoundError: if there is no such file, or the hub cannot be reached and its cache
            lacks the file.
        ValueError: if it is a URL, unreadable, needs a pickle executed, holds no state
            dict; if the hub has no such repository, revision or weight file; if timm has no
            such pretrained model.
    """
    scheme, _, name = str(source).partition(':')
    if '://' in str(source):
        raise ValueError(f'{source} is an address: download the file and give its path')
    if scheme == 'hf-hub':
        state = _read_from_hub(name)
    elif scheme == 'timm':
        state = _read_from_timm(name)
    elif scheme == 'mmpretrain':
        state = _rename_for_mmpretrain(name)
    else:
        state = read_file(source)
    return _move(state, map_location)


def trust_checkpoints(trusted: bool) -> None:
    """Set for this process whether files of weights may execute code while they are read.

    Without trust no code in this process executes a pickle: mmengine's loader reads local files
    through :mod:`locat_mm.checkpoint`, and ``torch.load`` reads only weights, even with
    ``weights_only=False``, which mmengine sets for downloads.
    :func:`locat_mm.engine.build_runner` and the tools call this.

    Args:
        trusted: execute the code in a file that cannot be read otherwise, with a warning.
    """
    reading.is_trusting = trusted
    CheckpointLoader.register_scheme('', load_from_locat_mm, force=True)
    if trusted:
        os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
    else:
        os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
        if os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None):
            print_log(
                'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored: to execute checkpoints that '
                'you trust, use --trust-checkpoint',
                'current',
                logging.WARNING,
            )


def load_from_locat_mm(filename: str, map_location: MapLocation = None) -> Any:
    """mmengine's loader: the whole content of a local file, the weights of any other source.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_state_dict`.
    """
    ahead = ReadAhead.take(filename)
    if ahead is not None:
        return ahead
    if re.match(r'hf-hub:|timm:|mmpretrain:|\S+://', filename) or filename.endswith('.safetensors'):
        return read_state_dict(filename, map_location)
    content = read_content(filename, map_location)
    if not isinstance(content, Mapping):
        return content
    meta = content.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)  # mmengine would execute it; its own checkpoints have cfg
    state = content.get('state_dict', content.get('model'))
    if isinstance(state, Mapping) and ('model' in content or _is_wrapped(state)):
        return {**content, 'state_dict': unwrap(content, filename)}
    return unwrap(content, filename) if _is_wrapped(content) else content


class ReadAhead:
    """A checkpoint that is read before mmengine loads it, so that it can be checked first.

    mmengine's next loading of the same source gets this content and does not read it again. The
    content is on the CPU for any ``map_location``, and is freed with this object.

    Args:
        source: anything that :func:`read_state_dict` reads.

    Attributes:
        content: from :func:`load_from_locat_mm`.
    """

    def __init__(self, source: str) -> None:
        self.content = load_from_locat_mm(source, 'cpu')
        self._version = _version_of(source)
        _read_ahead[source] = self

    @staticmethod
    def take(source: str) -> Any:
        """The content that was read ahead, once; None if there is none or the file has changed."""
        ahead = _read_ahead.pop(source, None)
        return ahead.content if ahead and ahead._version == _version_of(source) else None


_read_ahead: weakref.WeakValueDictionary[str, ReadAhead] = weakref.WeakValueDictionary()


def _version_of(source: str) -> tuple[int, ...] | None:
    """What changes when a local file is replaced; None for other sources."""
    path = Path(source).expanduser()
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_wrapped(state: Mapping) -> bool:
    """Whether names are those of DistributedDataParallel, which mmengine handles only in part."""
    return any(str(key).startswith('module.') for key in state)


def _read_from_hub(name: str) -> dict[str, Tensor]:
    parsed = re.fullmatch(r'([\w.-]+/[\w.-]+)(?:@(\S+))?', name)
    if parsed is None:
        raise ValueError(
            f'hf-hub:{name} is no repository of the hub: write hf-hub:OWNER/NAME or '
            'hf-hub:OWNER/NAME@REVISION'
        )
    return read_file(_find_weight_file(*parsed.groups()))


def _find_weight_file(repo: str, revision: str | None) -> str:
    for file in _WEIGHT_FILES:
        # The cache first: a run gives the same weights again, and needs no network.
        cached = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(cached, str):
            return cached
    for file in _WEIGHT_FILES:
        try:
            return hf_hub_download(repo, file, revision=revision)
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(how_to_place(repo, revision, error)) from error
        except EntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise ValueError(
                f'hf-hub:{repo} is gated: accept its terms on the hub, then `hf auth login`'
            ) from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f'the hub has no repository {repo}; if it is private, `hf auth login` first'
            ) from error
        except RevisionNotFoundError as error:
            raise ValueError(f'hf-hub:{repo} has no revision {revision!r}') from error
    raise ValueError(f'hf-hub:{repo} has no weight file: neither {" nor ".join(_WEIGHT_FILES)}')


def how_to_place(
    repo: str,
    revision: str | None,
    error: Exception,
    use_path: str = 'give its path in place of the name',
) -> str:
    """What to tell a user whose machine has neither the weights nor the hub.

    Args:
        repo: ``OWNER/NAME`` on the hub.
        revision: of the repository, or None.
        error: of the hub's library.
        use_path: what to do with the path of a copied file.
    """
    option = f' --revision {revision}' if revision else ''
    folder = f'models--{repo.replace("/", "--")}'
    reason = str(error.__cause__ or error).partition('\n')[0]
    return (
        f'{_WEIGHT_FILES[0]} of hf-hub:{repo} is not in the cache, and the hub is out of reach '
        f'({reason}). On a machine with network run `hf download {repo}{option}` and copy the '
        f'folder {folder} from its cache to {constants.HF_HUB_CACHE}; or copy '
        f'{_WEIGHT_FILES[0]} alone and {use_path}'
    )


def _rename_for_mmpretrain(source: str) -> dict[str, Tensor]:
    state = read_state_dict(source)
    if any(key.startswith('backbone.') for key in state):
        raise ValueError(f"{source} already has OpenMMLab's names")
    return to_openmmlab(state, neck_norm=any('.gaug.' in key for key in state))


def _read_from_timm(name: str) -> dict[str, Tensor]:
    if not timm.models.is_model_pretrained(name):
        has = 'has no pretrained weights of' if timm.is_model(name) else 'knows no model'
        arch = name.partition('.')[0]
        available = timm.list_pretrained()
        close = [tagged for tagged in available if tagged.partition('.')[0] == arch]
        close = close or difflib.get_close_matches(name, available, n=4)
        hint = f'; choose from {", ".join(close)}' if close else ''
        raise ValueError(f'timm {has} {name!r}{hint}')
    pretrained_cfg = timm.get_pretrained_cfg(name)
    assert pretrained_cfg is not None
    if not pretrained_cfg.hf_hub_id:
        raise ValueError(
            f'timm keeps the weights of {name!r} outside the hub: download {pretrained_cfg.url} '
            'and give its path'
        )
    given = dict(state_dict=_read_from_hub(pretrained_cfg.hf_hub_id))
    # timm translates old names only while it loads. The model's random weights are discarded.
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=given)
    return model.state_dict()


def _move(state: dict[str, Tensor], map_location: MapLocation) -> dict[str, Tensor]:
    if map_location is None:
        return state
    if isinstance(map_location, (str, torch.device)):
        return {key: value.to(map_location) for key, value in state.items()}
    # Only torch.load implements mappings and functions.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, map_location=map_location, weights_only=True)
