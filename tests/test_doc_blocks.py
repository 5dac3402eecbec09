"""Blocks of README and docs: options of commands exist, Python parses, the wrapper builds.

Pages with a test of their own run whole: inference.md, own_data.md, hosts.md, weights.md,
export.md, packaging.md, the notebook.
"""

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from locat_mm.layers import GAugMixin
from tests.support import ROOT
from tests.test_docs import BLOCK, PAGES, commands

#: One command: a script of ours and its arguments, up to a comment.
COMMAND = re.compile(r'(?:python )?((?:tools|benchmarks)/[\w/]+\.(?:py|sh))([^\n#]*)')
#: Arguments of dist_train.sh and the like go to these.
LAUNCHED = {
    'dist_train': 'train',
    'slurm_train': 'train',
    'dist_test': 'test',
    'slurm_test': 'test',
}


def lines(page: Path) -> list[tuple[str, list[str]]]:
    """Scripts and the long options that they are given."""
    found = []
    for block in commands(page):
        for script, rest in COMMAND.findall(block.replace('\\\n', ' ')):
            words = shlex.split(rest.split('&&')[0].split('|')[0])
            found.append((script, [w.partition('=')[0] for w in words if w.startswith('--')]))
    return found


USED = sorted({(s, o) for page in PAGES for s, options in lines(page) for o in options})
SCRIPTS = sorted({script for script, _ in USED})


def help_of(script: str, capsys, monkeypatch) -> str:
    path = ROOT / script
    if path.suffix == '.sh':
        path = ROOT / 'tools' / f'{LAUNCHED[path.stem]}.py'
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(f'doc_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as end:
        module.main(['--help'])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize('script', SCRIPTS)
def test_options_in_commands_are_the_tools(script, capsys, monkeypatch):
    text = help_of(script, capsys, monkeypatch)
    for option in (o for s, o in USED if s == script):
        assert re.search(rf'{option}\b', text), f'{script} has no {option}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_python_blocks_parse(page):
    for language, text in BLOCK.findall(page.read_text()):
        if language == 'python':
            ast.parse(text.replace('...', '_=...') if re.search(r', \.\.\.\)', text) else text)


def test_the_readmes_wrapper_fits_a_stock_config(tmp_path):
    (block,) = (
        text
        for language, text in BLOCK.findall((ROOT / 'README.md').read_text())
        if language == 'python' and 'locat_mm.LocAt' in text
    )
    base = 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = __import__('locat_mm').config_path('{base}')\n{block}")
    cfg = Config.fromfile(file)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert sum(isinstance(module, GAugMixin) for module in model.backbone.modules()) == 12
