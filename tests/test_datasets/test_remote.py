"""Files behind a backend are not looked for on this machine."""

from types import SimpleNamespace

import pytest

from locat_mm.datasets import check_sources, has_backend, missing_files

BACKEND = dict(backend='petrel', path_mapping={'data/': 's3://bucket/'})
LOAD = dict(type='LoadImageFromFile')


@pytest.mark.parametrize('name', ['backend_args', 'file_client_args'])
@pytest.mark.parametrize('where', ['dataset', 'pipeline'])
def test_sources(name, where):
    own, step = ({name: BACKEND} if where == part else {} for part in ('dataset', 'pipeline'))
    cfg = dict(type='CustomDataset', data_prefix='nowhere/train', **own)
    cfg['pipeline'] = [{**LOAD, **step}]
    assert has_backend(cfg, cfg['pipeline'])
    check_sources('train_dataloader', cfg, 'mmpretrain')


def test_a_folder_of_this_machine_is_looked_for():
    cfg = dict(type='CustomDataset', data_prefix='nowhere/train', pipeline=[LOAD])
    with pytest.raises(FileNotFoundError, match='no folder nowhere/train'):
        check_sources('train_dataloader', cfg, 'mmpretrain')


class Listed(list):
    """A data set that lists files by a split."""

    ann_file = 'split.txt'

    def __init__(self, names, **transform):
        super().__init__(names)
        self.pipeline = SimpleNamespace(transforms=[SimpleNamespace(**transform)])

    def get_data_info(self, index):
        return dict(img_path=self[index])


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here.png').write_bytes(b'')
    assert missing_files(Listed(['here.png', 'gone.png'])) == ['gone.png']
    assert missing_files(Listed(['here.png', 'gone.png'], backend_args=BACKEND)) == []
