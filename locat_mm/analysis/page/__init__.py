"""One HTML file with all that was recorded of some images: the figures, but for every patch.

- :mod:`~locat_mm.analysis.page.encoding` quantises arrays and writes them as text.
- :mod:`~locat_mm.analysis.page.gathering` makes the content of a page from inspections.
- :mod:`~locat_mm.analysis.page.writing` puts content, HTML, CSS and JavaScript into one file.

``page.html``, ``page.css`` and the files ``*.js`` are those of the page, in plain JavaScript.
"""

from .gathering import HEAD_LIMIT, Subject, gather
from .writing import refresh_page, write_page

__all__ = ['HEAD_LIMIT', 'Subject', 'gather', 'refresh_page', 'write_page']
