"""A pipeline that fails names its files; what is passed over is noted; errors of code stay."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmpretrain.datasets import CustomDataset
from mmseg.datasets import BaseSegDataset

from locat_mm.datasets import (
    BadSampleError,
    CheckAnnotations,
    GuardedPipeline,
    SkipLog,
    check_sources,
    leaves,
    missing_files,
)

CLASSES = ('sky', 'sea', 'land')


@pytest.fixture
def scenes(tmp_path):
    """Six images of 20×30 with masks."""
    for kind in ('images', 'masks'):
        (tmp_path / kind).mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.jpg'), np.full((20, 30, 3), i, np.uint8))
        cv2.imwrite(str(tmp_path / 'masks' / f'{i}.png'), np.full((20, 30), i % 3, np.uint8))
    return tmp_path


def seg_dataset(folder, *others, **settings):
    settings.setdefault('data_prefix', dict(img_path='images', seg_map_path='masks'))
    return BaseSegDataset(
        data_root=str(folder),
        metainfo=dict(classes=CLASSES),
        serialize_data=False,  # which collects garbage
        pipeline=[
            dict(type='mmseg.LoadImageFromFile'),
            dict(type='mmseg.LoadAnnotations'),
            *others,
        ],
        **settings,
    )


def guarded(dataset, **settings):
    dataset.pipeline = GuardedPipeline(dataset, **settings)
    return dataset


def fail(data):
    if data['img_path'].endswith('2.jpg'):
        raise KeyError('scale')
    return data


def damage_image(folder):
    path = folder / 'images' / '2.jpg'
    path.write_bytes(path.read_bytes()[:200])


def damage_mask(folder):
    (folder / 'masks' / '2.png').write_bytes(b'')


def resize_mask(folder):
    cv2.imwrite(str(folder / 'masks' / '2.png'), np.zeros((20, 29), np.uint8))


def new_class(folder):
    cv2.imwrite(str(folder / 'masks' / '2.png'), np.full((20, 30), 3, np.uint8))


def remove_mask(folder):
    (folder / 'masks' / '2.png').unlink()


BROKEN = {
    damage_image: ('images/2.jpg is truncated', 'damaged'),
    damage_mask: (r'masks/2.png is empty \(0 bytes\)', 'damaged'),
    remove_mask: ('masks/2.png cannot be read: No such file', 'unreadable'),
    resize_mask: (r'masks/2.png: the mask has shape \(20, 29\)', 'mask of another size'),
    new_class: ('masks/2.png: class 3 is outside the 3 classes', 'class out of range'),
}


@pytest.mark.parametrize('breaking', BROKEN)
def test_broken_samples_are_named_or_passed_over(breaking, scenes, tmp_path):
    breaking(scenes)
    message, kind = BROKEN[breaking]
    dataset = guarded(seg_dataset(scenes), hint='Mend it.')
    assert dataset[1]['gt_seg_map'].shape == (20, 30)
    with pytest.raises(BadSampleError, match=f'{message}.* Mend it.') as caught:
        dataset[2]
    assert caught.value.kind == kind
    log = SkipLog(str(tmp_path / 'skipped.txt'), 1)
    dataset = guarded(seg_dataset(scenes), skipped=log)
    seen = {dataset[2]['img_path'][-5] for _ in range(20)}
    assert seen <= set('01345') and len(seen) > 1
    [(name, problem)] = log.read().items()
    assert name.endswith('images/2.jpg') and '2.' in problem


def test_mistakes_in_code_are_never_passed_over(scenes, tmp_path):
    log = SkipLog(str(tmp_path / 'skipped.txt'), 10)
    dataset = guarded(seg_dataset(scenes, fail), skipped=log)
    with pytest.raises(RuntimeError, match="images/2.jpg.*pipeline fails on it.*KeyError: 'scale'"):
        dataset[2]
    assert log.read() == {}


def test_too_many_are_an_error(scenes, tmp_path):
    for i in (1, 3, 4):
        (scenes / 'masks' / f'{i}.png').write_bytes(b'')
    dataset = guarded(seg_dataset(scenes), skipped=SkipLog(str(tmp_path / 'skipped.txt'), 2))
    for index in (1, 3, 1, 3):  # the same ones again do not count
        assert dataset.pipeline(dataset.get_data_info(index)) is None
    with pytest.raises(BadSampleError, match='masks/4.png is empty.*More than max_skipped=2'):
        dataset.pipeline(dataset.get_data_info(4))


def test_only_data_sets_that_take_another_sample_can_skip(scenes, tmp_path):
    log = SkipLog(str(tmp_path / 'skipped.txt'), 1)
    with pytest.raises(ValueError, match='takes no other sample'):
        GuardedPipeline(seg_dataset(scenes, test_mode=True), skipped=log)


def test_the_check_of_annotations_is_added_once(scenes):
    def checks(dataset):
        guarded(dataset)
        transforms = dataset.pipeline.transforms
        return [i for i, t in enumerate(transforms) if isinstance(t, CheckAnnotations)]

    assert checks(seg_dataset(scenes, fail)) == [2]
    own = dict(type='locat_mm.CheckAnnotations', num_classes=150)
    assert checks(seg_dataset(scenes, fail, own)) == [3]


def labels(folder, *lines, **settings):
    (folder / 'split.txt').write_text('\n'.join(lines))
    return CustomDataset(
        data_root=str(folder),
        ann_file='split.txt',
        data_prefix='images',
        pipeline=[dict(type='mmpretrain.LoadImageFromFile')],
        classes=CLASSES,
        **settings,
    )


def test_a_label_out_of_range_is_named(scenes):
    dataset = guarded(labels(scenes, '0.jpg 2', '1.jpg 3'))
    assert dataset[0]['gt_label'] == 2
    with pytest.raises(BadSampleError, match='images/1.jpg: label 3 is outside the 3 classes'):
        dataset[1]


def test_samples_without_files_keep_their_errors():
    class InMemory(BaseDataset):
        def load_data_list(self):
            return [dict(value=1)]

    def divide(data):
        return data['value'] / 0

    dataset = guarded(InMemory(pipeline=[divide]))
    with pytest.raises(ZeroDivisionError):
        dataset[0]


def test_guarded_data_sets_reach_spawned_workers(scenes):
    damage_image(scenes)
    dataset = guarded(seg_dataset(scenes))
    copied = pickle.loads(pickle.dumps(dataset))
    with pytest.raises(BadSampleError, match='images/2.jpg is truncated'):
        copied[2]
    loader = torch.utils.data.DataLoader(dataset, num_workers=1, collate_fn=list)
    with pytest.raises(BadSampleError, match='(?s)in DataLoader worker.*images/2.jpg is truncated'):
        list(loader)


def test_leaves_are_found_in_wrappers(scenes):
    one, two = seg_dataset(scenes), seg_dataset(scenes)
    assert list(leaves(ConcatDataset([one, two]))) == [one, two]
    assert list(leaves(torch.utils.data.Subset(RepeatDataset(one, 2), [0]))) == [one]
    assert list(leaves(one)) == [one]


def test_missing_files_are_found(scenes):
    assert missing_files(seg_dataset(scenes)) == []
    remove_mask(scenes)
    assert missing_files(seg_dataset(scenes)) == [str(scenes / 'masks' / '2.png')]
    found = missing_files(labels(scenes, '0.jpg 2', 'there/8.jpg 1', '9.jpg 0'))
    assert found == [str(scenes / 'images' / name) for name in ('there/8.jpg', '9.jpg')]
    (scenes / 'val.txt').write_text('0\n2\n7\n')
    found = missing_files(seg_dataset(scenes, ann_file='val.txt'))
    assert found == [str(scenes / name) for name in ('masks/2.png', 'images/7.jpg', 'masks/7.png')]


@pytest.mark.parametrize(
    'settings, error, message',
    [
        (dict(img_suffix='.png'), ValueError, "images .data_prefix.img_path. has no file.*'.png'"),
        (dict(data_prefix=dict(img_path='none')), FileNotFoundError, 'no folder .*none'),
        (dict(data_prefix=dict(img_path='empty')), ValueError, "empty .*has no file.*'.jpg'"),
        (dict(ann_file='none.txt'), FileNotFoundError, 'no file .*none.txt, the split'),
        (dict(ann_file='images'), FileNotFoundError, 'no file .*images, the split'),
        (dict(ann_file='blank.txt'), ValueError, 'blank.txt, the split .*names no sample'),
        (dict(data_root='s3://bucket/empty'), None, ''),
        (dict(), None, ''),
    ],
)
def test_empty_sources_are_named_before_anything_is_built(settings, error, message, scenes):
    (scenes / 'empty').mkdir()
    (scenes / 'blank.txt').write_text('\n')
    default = dict(
        type='BaseSegDataset',
        data_root=str(scenes),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
    )
    cfg = {**default, **settings}
    if error is None:
        check_sources('train_dataloader', cfg, 'mmseg')
        return
    with pytest.raises(error, match=f'train_dataloader: .*{message}'):
        check_sources('train_dataloader', cfg, 'mmseg')
