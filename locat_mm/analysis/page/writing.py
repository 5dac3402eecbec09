"""Puts the content of a page, its HTML, its style and its scripts into one file."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ...checkpoint import write_beside
from .gathering import Subject, gather

__all__ = ['refresh_page', 'write_page']

_FOLDER = Path(__file__).parent
#: In the order in which the page runs them.
_SCRIPTS = ('data.js', 'scales.js', 'drawing.js', 'panels.js', 'numbers.js', 'main.js')
#: The content of a page stands between these two lines.
_START, _END = '<!-- content -->\n', '<!-- end of content -->\n'


def write_page(subjects: Sequence[Subject], out: str | Path) -> Path:
    """Write a page that needs no other file and no network.

    Args:
        subjects: see :func:`~locat_mm.analysis.page.gathering.gather`.
        out: the file.

    Returns:
        ``out``.

    Raises:
        ValueError: if the models have not seen the same images.
    """
    data, texts = gather(subjects)
    # "<" in a name must not end the element.
    encoded = json.dumps(data, ensure_ascii=False, allow_nan=False).replace('<', '\\u003c')
    lines = [f'<script type="application/json" id="data">{encoded}</script>']
    lines += [
        f'<script type="text/plain" id="blob{number}">{text}</script>'
        for number, text in enumerate(texts)
    ]
    with write_beside(out) as beside:
        beside.write_text(_assemble('\n'.join(lines) + '\n'), encoding='utf-8')
    return Path(out)


def refresh_page(page: str | Path) -> str:
    """The content of a page that was written earlier, with today's HTML, style and scripts.

    Raises:
        ValueError: if the file is no such page.
    """
    text = Path(page).read_text(encoding='utf-8')
    if _START not in text or _END not in text:
        raise ValueError(f'{page} is no page that inspect_locat.py --html has written')
    return _assemble(text.partition(_START)[2].partition(_END)[0])


def _assemble(content: str) -> str:
    parts = {
        'style': f'<style>\n{_read("page.css")}</style>\n',
        'content': f'{_START}{content}{_END}',
        'scripts': ''.join(f'<script>\n{_read(name)}</script>\n' for name in _SCRIPTS),
    }
    return re.sub(
        r'<!-- (style|content|scripts) here -->\n',
        lambda match: parts[match[1]],
        _read('page.html'),
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding='utf-8')
