"""The docs name shipped configs, and their example config builds as printed."""

import re

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from locat_mm.config import load_config
from locat_mm.registry import MODELS
from tests.support.shipped import CONFIGS, ROOT


def test_pages_name_shipped_configs():
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *ROOT.glob('configs/**/*.md')]
    named = {n for page in pages for n in re.findall(r'configs/([\w/]+\.py)', page.read_text())}
    named = {name for name in named if not re.search('[A-Z]{3}', name)}  # FAMILY_SIZE_TASK
    assert {'locat/locatvit_tiny_imagenet.py', 'locat/locatvit_tiny_ade20k.py'} <= named
    assert named <= {*CONFIGS, *(f'_base_/{p.name}' for p in ROOT.glob('configs/_base_/*.py'))}


def test_every_folder_has_a_readme_that_links_to_its_files():
    for folder in {(ROOT / 'configs' / name).relative_to(ROOT).parts[1] for name in CONFIGS}:
        page = ROOT / 'configs' / folder / 'README.md'
        links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text())
        assert links
        missing = [link for link in links if not (page.parent / link).exists()]
        assert not missing, page


def test_the_example_of_packaging_md_builds(tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/packaging.md').read_text(), re.S)
    (block,) = (block for block in blocks if 'loveda' in block)
    path = tmp_path / 'mine.py'
    path.write_text(block)
    cfg = load_config(str(path))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        assert model(torch.empty(1, 3, 64, 64)).shape == (1, 7, 4, 4)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert [TRANSFORMS.build(step) for step in loader.dataset.pipeline]
        with DATASETS.switch_scope_and_registry(None) as registry:
            classes = registry.get(loader.dataset.type).METAINFO['classes']
        assert len(classes) == cfg.model.decode_head.num_classes
    build_optim_wrapper(model, cfg.optim_wrapper)
    assert cfg.train_cfg.max_iters == 20000 and cfg.val_cfg and cfg.test_evaluator
