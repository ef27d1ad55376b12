"""HTML pages that work without a network.

A report needs nothing but itself: style, scripts and data are in the file.  Pages of plots, of
which there are many, share one copy of plotly.js beside them.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eqcctpro.picks.writers import atomic_file

__all__ = ["Figure", "Table", "as_json", "plain", "render", "share_plotly", "write_page"]

#: Names of columns, and rows of cells.
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True)
class Figure:
    """One plot of a page.

    Attributes
    ----------
    name : str
        Its element's id: letters, digits, ``_`` and ``-``.
    title : str
    traces : list of dict
        Of plotly.js.  A trace with ``meta.rows`` has a row of the page's table for each
        point, and is filtered with it.
    layout : dict
        Of plotly.js; colours of paper, text and grids follow the page.
    height : int
        Pixels.
    note : str
        What one should know to read it.
    """

    name: str
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 420
    note: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """Figure as plotly.js takes it: traces and layout."""
        return {"data": list(self.traces), "layout": dict(self.layout)}


def plain(text: object) -> str:
    """Text for plotly.js, which takes tags and entities for markup."""
    return html.escape(str(text), quote=False)


def as_json(value: Any) -> str:
    """JSON that can stand in a script element; what is not a number is null."""
    text = json.dumps(_clean(value), separators=(",", ":"), allow_nan=False, default=str)
    # A closing tag or a comment in the data would end the element.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    return value


def render(template: str, *, plotly_file: str = "", **values: Any) -> str:
    """Fill a template; every value is escaped.

    Parameters
    ----------
    template : str
        File in ``templates``.
    plotly_file : str
        Name of plotly.js beside the page; by default it is put into the page.
    **values
        Of the template; it also has the filter ``json`` for data in script elements, and
        ``seconds`` and ``count`` for numbers.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("eqcctpro.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = lambda value: Markup(as_json(value))
    environment.filters["seconds"] = seconds_text
    environment.filters["count"] = lambda value: f"{value:,.0f}"
    # The library is ours to trust; it is put in as it is.
    library = "" if plotly_file else Markup(get_plotlyjs())
    return environment.get_template(template).render(
        plotly_js=library, plotly_file=plotly_file, **values
    )


def share_plotly(folder: Path) -> str:
    """Put plotly.js into a folder, unless it is there; returns the file's name.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    from plotly import __version__
    from plotly.offline import get_plotlyjs

    # A page goes on with the version that it was made for, whatever is made beside it later.
    path = folder / f"plotly-{__version__}.min.js"
    content = get_plotlyjs().encode()
    if not path.is_file() or path.stat().st_size != len(content):
        with atomic_file(path) as file:
            file.write(content)
    return path.name


def seconds_text(value: float) -> str:
    """A duration as people say it."""
    if value >= 3600:
        return f"{value // 3600:.0f} h {value % 3600 / 60:.0f} min"
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value:.3g} s"


def write_page(
    path: Path,
    *,
    title: str,
    figures: Sequence[Figure],
    subtitle: str = "",
    rows: Sequence[Mapping[str, Any]] = (),
    filters: Sequence[str] = (),
    tables: Sequence[Table] = (),
) -> Path:
    """Write a page of plots with filters; `share_plotly` puts plotly.js beside it.

    Parameters
    ----------
    path : Path
    title, subtitle : str
    figures : sequence of Figure
    rows : sequence of mapping
        What the points of filtered traces are, by column.
    filters : sequence of str
        Columns of `rows` to choose by; those with one value are left out.
    tables : sequence of (columns, rows)
        Below the plots.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    choices = {
        name: sorted({row[name] for row in rows if row.get(name) is not None}) for name in filters
    }
    page = render(
        "plots.html.j2",
        title=title,
        subtitle=subtitle,
        figures=figures,
        rows=list(rows),
        choices={name: values for name, values in choices.items() if len(values) > 1},
        tables=tables,
        plotly_file=share_plotly(path.parent),
    )
    with atomic_file(path) as file:
        file.write(page.encode())
    return path
