"""Style and scripts as written here, the colours that static plots have too, and plotly as installed."""

from __future__ import annotations

from pathlib import Path

from ...plots.style import DARK, LIGHT, Theme

PLOTLY = "assets/plotly.min.js"
SELECTORS = ((":root", LIGHT), (':root[data-theme="dark"]', DARK))


def files() -> dict[str, bytes]:
    """Path in the site -> content."""
    from plotly.offline import get_plotlyjs

    here = Path(__file__).parent
    own = sorted(file for file in here.iterdir() if file.suffix in (".css", ".js"))
    found = {f"assets/{file.name}": file.read_bytes() for file in own}
    return {**found, "assets/colours.css": _colours().encode(), PLOTLY: get_plotlyjs().encode()}


def _colours() -> str:
    """Light, dark by choice, and dark where the system has it and nothing else was chosen."""
    by_choice = [f"{selector} {{ {_variables(theme)} }}" for selector, theme in SELECTORS]
    dark = f':root:not([data-theme="light"]) {{ {_variables(DARK)} }}'
    return "\n".join([*by_choice, f"@media (prefers-color-scheme: dark) {{ {dark} }}", ""])


def _variables(theme: Theme) -> str:
    named = {"page": theme.page, "ink": theme.ink, "faint": theme.faint, "quiet": theme.quiet}
    series = {f"series-{place}": colour for place, colour in enumerate(theme.series)}
    scheme = f"color-scheme: {'dark' if theme is DARK else 'light'};"
    return " ".join([*(f"--{name}: {value};" for name, value in {**named, **series}.items()), scheme])
