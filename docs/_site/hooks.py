"""Hooks of mkdocs: pages that are made of other files, and a check of docstrings.

- The front page is README.md; CONTRIBUTING.md and CHANGELOG.md are pages too. Links between them
  and the pages of docs/ are rewritten. Links to other files of the repository need REPOSITORY_URL.
- ``look_inside.html``: the page of two models of the demo, with today's scripts, which inspect.md
  embeds.
- ``api/*.md``: one page for each package of locat_mm, with all that its ``__all__`` lists.
"""

import importlib
import inspect
import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from locat_mm.analysis.page import refresh_page

ROOT = Path(__file__).parents[2]
#: The content, without style and scripts, of what `make demo` wrote as
#: work_dirs/demo/look_inside.html.
LOOK_INSIDE = Path(__file__).with_name('look_inside.html')
#: Address of the repository, such as https://HOST/OWNER/NAME. Without it, files outside of the
#: site are named and not linked.
REPOSITORY = os.environ.get('REPOSITORY_URL', '').rstrip('/')
#: Path from the root -> path in the site.
PAGES = {
    'README.md': 'index.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
}
#: Package -> title of its page.
PACKAGES = {
    'locat_mm': 'locat_mm',
    'locat_mm.ops': 'ops: tensor functions',
    'locat_mm.layers': 'layers',
    'locat_mm.models': 'models',
    'locat_mm.checkpoint': 'checkpoint',
    'locat_mm.datasets': 'datasets',
    'locat_mm.evaluation': 'evaluation',
    'locat_mm.analysis': 'analysis',
    'locat_mm.engine': 'engine',
    'locat_mm.config': 'config',
}
_LINK = re.compile(r'\[([^\]]*)\]\(([^)\s#]+)((?:#[^)\s]*)?)\)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages.

    Raises:
        PluginError: if a public name has no docstring.
    """
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding='utf-8')
        files.append(File.generated(config, target, content=text))
    files.append(File.generated(config, 'look_inside.html', content=refresh_page(LOOK_INSIDE)))
    for name, title in PACKAGES.items():
        files.append(File.generated(config, _api_page(name), content=_describe(name, title)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page for where it stands in the site."""
    here = page.file.src_uri
    source = next((s for s, target in PAGES.items() if target == here), f'docs/{here}')
    if here.startswith('api/'):
        return markdown

    def rewrite(match: re.Match) -> str:
        label, link, anchor = match.groups()
        if '://' in link or link.startswith('mailto:'):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        if path in PAGES:
            target = PAGES[path]
        elif path.startswith('docs/'):
            target = path.removeprefix('docs/')
        elif (ROOT / path).exists():
            kind = 'tree' if (ROOT / path).is_dir() else 'blob'
            address = f'{REPOSITORY}/{kind}/main/{path}'
            return f'[{label}]({address}{anchor})' if REPOSITORY else f'{label} (`{path}`)'
        else:
            return match[0]  # mkdocs reports it
        return f'[{label}]({posixpath.relpath(target, posixpath.dirname(here) or ".")}{anchor})'

    return _LINK.sub(rewrite, markdown)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Title the front page."""
    for page in nav.pages:
        if page.file.src_uri == 'index.md':
            page.title = 'locat_mm'
    return nav


def _api_page(name: str) -> str:
    return f'api/{name.rpartition(".")[2] if "." in name else "index"}.md'


def _describe(name: str, title: str) -> str:
    """A page with every public name of a package that is no module.

    Raises:
        PluginError: if one has no docstring.
    """
    package = importlib.import_module(name)
    members = [n for n in package.__all__ if not inspect.ismodule(getattr(package, n))]
    lines = [f'# {title}', '', (package.__doc__ or '').split('\n\n')[0], '']
    for member in members:
        value = getattr(package, member)
        if callable(value) and not inspect.getdoc(value):
            raise PluginError(f'{name}.{member} is public and has no docstring')
        # By where it is defined: a function may have the name of its module.
        is_own = callable(value) and value.__module__.startswith('locat_mm')
        path = f'{value.__module__}.{value.__qualname__}' if is_own else f'{name}.{member}'
        lines += [f'::: {path}', '']
    return '\n'.join(lines)
