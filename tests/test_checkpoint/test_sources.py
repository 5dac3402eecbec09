"""The hub, timm and safetensors, offline and through mmengine's loader."""

import importlib
import io
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import timm
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save, save_file

from locat_mm import load_official
from locat_mm.checkpoint import read_state_dict, sources
from locat_mm.models import LocAtViT
from tests.support.checkpoints import COMMIT, Hostile, assert_logits, build, classifier_cfg

TINY = 'vit_tiny_patch16_224.augreg_in21k_ft_in1k'


def assert_same(state, expected):
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], value) for key, value in expected.items())


def as_bin(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_mmengines_loader_reads_the_hub_and_safetensors(golden, hub, tmp_path):
    hub.add('sinahmr/locatvit_tiny', golden.state_dict)
    local = tmp_path / 'weights.safetensors'
    save_file(golden.state_dict, local)
    for source in ('hf-hub:sinahmr/locatvit_tiny', str(local)):
        assert_same(CheckpointLoader.load_checkpoint(source), golden.state_dict)
        assert_same(read_state_dict(source), golden.state_dict)
    model = load_official(build(classifier_cfg(golden)), 'hf-hub:sinahmr/locatvit_tiny')
    assert_logits(model, golden)


@pytest.mark.parametrize('map_location', ['meta', torch.device('meta'), {'cpu': 'meta'}], ids=str)
def test_map_location_is_honoured(map_location, golden, hub):
    hub.add('a/b', golden.state_dict)
    state = CheckpointLoader.load_checkpoint('hf-hub:a/b', map_location)
    assert {value.device.type for value in state.values()} == {'meta'}


def test_map_location_may_be_a_function(hub):
    hub.add('a/b', {'x': torch.ones(2)})
    state = CheckpointLoader.load_checkpoint('hf-hub:a/b', lambda storage, place: storage.fill_(3))
    assert_same(state, {'x': torch.ones(2).view(torch.uint8).fill_(3).view(torch.float32)})


def test_addresses_stay_mmengines_and_a_second_import_is_fine():
    importlib.reload(sources)
    sources.trust_checkpoints(False)
    for path, loader in (
        ('hf-hub:a/b', 'load_from_locat_mm'),
        ('timm:vit', 'load_from_locat_mm'),
        ('some/file.safetensors', 'load_from_locat_mm'),
        ('some/file.pth', 'load_from_locat_mm'),
        ('https://host/file.safetensors', 'load_from_http'),
        ('s3://bucket/file.safetensors', 'load_from_ceph'),
    ):
        assert CheckpointLoader._get_checkpoint_loader(path).__name__ == loader
    with pytest.raises(ValueError, match='is an address: download the file'):
        read_state_dict('https://host/file.safetensors')


def test_revisions_and_files_of_a_repository(golden, hub):
    other = {'x': torch.ones(2)}
    hub.add('a/b', golden.state_dict)
    hub.add('a/b', as_bin(other), 'pytorch_model.bin')
    assert_same(read_state_dict('hf-hub:a/b'), golden.state_dict)
    hub.add('a/b', as_bin(other), 'pytorch_model.bin', commit='f' * 40, revision='old')
    assert_same(read_state_dict('hf-hub:a/b@old'), other)
    assert_same(read_state_dict(f'hf-hub:a/b@{COMMIT}'), golden.state_dict)


def test_offline_says_how_to_place_the_file(hub):
    with pytest.raises(FileNotFoundError) as caught:
        CheckpointLoader.load_checkpoint('hf-hub:sinahmr/locatvit_tiny@v1')
    message = str(caught.value)
    assert 'model.safetensors of hf-hub:sinahmr/locatvit_tiny is not in the cache' in message
    assert '`hf download sinahmr/locatvit_tiny --revision v1`' in message
    assert f'models--sinahmr--locatvit_tiny from its cache to {hub.folder}' in message
    assert 'give its path in place of the name' in message
    with pytest.raises(FileNotFoundError, match=f'hf download timm/{TINY}`'):
        read_state_dict(f'timm:{TINY}')


@pytest.mark.parametrize('name', ['locatvit_tiny', 'a/b/c', 'a/b@', '/b', ''])
def test_a_malformed_name_is_refused(name, hub):
    with pytest.raises(ValueError, match='write hf-hub:OWNER/NAME'):
        read_state_dict(f'hf-hub:{name}')


@pytest.mark.parametrize('file', ['model.safetensors', 'pytorch_model.bin'])
def test_a_truncated_file_is_named(file, golden, hub, tmp_path):
    content = save(golden.state_dict) if 'safe' in file else as_bin(golden.state_dict)
    for length in (0, 5, 500, len(content) - 10):
        path = hub.add(f'a/cut{length}', content[:length], file)
        with pytest.raises(ValueError, match=f'{path} cannot be read as weights alone'):
            read_state_dict(f'hf-hub:a/cut{length}')


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: an error per owner, and one repository with a file."""

    content = b''
    refused = {
        'absent': (401, 'RepoNotFound'),
        'gated': (403, 'GatedRepo'),
        'norev': (404, 'RevisionNotFound'),
        'empty': (404, 'EntryNotFound'),
        'broken': (451, ''),
    }

    def do_HEAD(self):
        owner = self.path.split('/')[1]
        status, code = self.refused.get(owner, (200, ''))
        self.send_response(status if 'model.safetensors' in self.path or status > 400 else 404)
        self.send_header('X-Error-Code', code)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('ETag', '"0123"')
        self.send_header('Content-Length', str(len(self.content) if status == 200 else 0))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *args):
        pass


@pytest.fixture
def online(hub, monkeypatch):
    """The hub's place is taken by a server of ours; answers pass through its own library."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f'http://127.0.0.1:{server.server_port}'
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    monkeypatch.setattr(
        constants,
        'HUGGINGFACE_CO_URL_TEMPLATE',
        address + '/{repo_id}/resolve/{revision}/{filename}',
    )
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    'name, message',
    [
        ('absent/x', 'the hub has no repository absent/x; if it is private'),
        ('gated/x', 'hf-hub:gated/x is gated: accept its terms'),
        ('norev/x@v9', "hf-hub:norev/x has no revision 'v9'"),
        ('empty/x', 'no weight file: neither model.safetensors nor pytorch_model.bin'),
        ('broken/x', 'of hf-hub:broken/x is not in the cache, .*451'),
    ],
)
def test_what_the_hub_refuses_is_said(name, message, online):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_state_dict(f'hf-hub:{name}')


def test_a_download_is_kept_in_the_cache(golden, online, monkeypatch):
    monkeypatch.setattr(Hub, 'content', save(golden.state_dict))
    assert_same(read_state_dict('hf-hub:there/x'), golden.state_dict)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert_same(read_state_dict('hf-hub:there/x'), golden.state_dict)


def test_timm_gives_its_pretrained_weights_in_present_names(hub):
    expected = timm.create_model(TINY).state_dict()
    old = dict(expected)
    # Before patches were embedded by a convolution.
    old['patch_embed.proj.weight'] = expected['patch_embed.proj.weight'].flatten(1)
    hub.add(f'timm/{TINY}', old)
    before = torch.get_rng_state()
    assert_same(read_state_dict(f'timm:{TINY}'), expected)
    assert torch.equal(torch.get_rng_state(), before)
    backbone = LocAtViT(
        'tiny',
        gaug=False,
        init_cfg=dict(type='Pretrained', checkpoint='timm:vit_tiny_patch16_224'),
    )
    backbone.init_weights()
    assert torch.equal(backbone.blocks[11].mlp.fc2.bias, expected['blocks.11.mlp.fc2.bias'])
    assert torch.equal(backbone.norm.weight, expected['norm.weight'])


def test_what_mmengine_downloads_is_not_executed_either(online, monkeypatch, tmp_path):
    """mmengine hands addresses to ``torch.load`` with ``weights_only=False``."""
    marker = tmp_path / 'executed'
    buffer = io.BytesIO()
    torch.save({'state_dict': {}, 'x': Hostile(marker)}, buffer)
    monkeypatch.setattr(Hub, 'content', buffer.getvalue())
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    address = f'{huggingface_hub.constants.ENDPOINT}/there/model.safetensors.pth'
    sources.trust_checkpoints(False)
    with pytest.raises(pickle.UnpicklingError, match='mkdir'):
        CheckpointLoader.load_checkpoint(address)
    assert not marker.exists()


@pytest.mark.parametrize(
    'name, message',
    [
        (
            'vit_tiny_patch16_242',
            r"knows no model 'vit_tiny_patch16_242'; .*vit_tiny_patch16_224\.",
        ),
        ('vit_tiny_patch16_224.mine', f"no pretrained weights of .*mine'; choose from.* {TINY}"),
        ('vit_base_patch16_gap_224', "no pretrained weights of 'vit_base_patch16_gap_224'"),
        ('gcvit_tiny.in1k', 'outside the hub: download https://.* and give its path'),
        ('hf-hub:timm/x', "knows no model 'hf-hub:timm/x'$"),
    ],
)
def test_what_timm_does_not_have_is_said(name, message, hub):
    with pytest.raises(ValueError, match=message):
        read_state_dict(f'timm:{name}')
