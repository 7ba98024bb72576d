"""Pictures of a terminal's screen, by Chromium, when TAUT_SCREENSHOTS names a folder for them."""

import html
import os
import pathlib
import subprocess
import tempfile

FOLDER = os.environ.get("TAUT_SCREENSHOTS")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
COLORS = {
    "default": "#e6e6e6", "black": "#45475a", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff",
    "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#e6e6e6",
}


def take(screen, name, title):
    """Saves the screen as NAME.png."""
    if not FOLDER:
        return
    folder = pathlib.Path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(screen, number) for number in range(screen.lines)]
    while rows and not rows[-1].strip():
        rows.pop()
    width, height = int(screen.columns * 8.43) + 40, 20 * len(rows) + 76
    page = f"""<!doctype html><meta charset="utf-8"><style>
      body {{ margin: 0; background: #0d1117; font: 14px/20px 'DejaVu Sans Mono', 'Liberation Mono', monospace; }}
      header {{ background: #161b22; color: #8b949e; padding: 6px 20px; }}
      pre {{ margin: 0; padding: 14px 20px; color: #e6e6e6; font: inherit; }}
    </style><header>$ {html.escape(title)}</header><pre>{chr(10).join(rows)}</pre>"""
    with tempfile.TemporaryDirectory() as profile:
        path = pathlib.Path(profile) / "page.html"
        path.write_text(page)
        subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2",
             f"--user-data-dir={profile}",
             f"--window-size={width},{height}", f"--screenshot={folder / name}.png", path.as_uri()],
            check=True, capture_output=True, timeout=60,
        )


def row(screen, number):
    """A line of the screen, with a span where the look changes."""
    line, spans, look, text = screen.buffer[number], [], None, ""
    for column in range(screen.columns):
        cell = line[column]
        here = (cell.fg, cell.bold, cell.reverse)
        if here != look:
            spans.append(span(look, text))
            look, text = here, ""
        text += cell.data
    spans.append(span(look, text))
    return "".join(spans).rstrip()


def span(look, text):
    if not text:
        return ""
    color, bold, reverse = look
    color = COLORS.get(color) or (f"#{color}" if len(color) == 6 else COLORS["default"])
    style = f"color:{color}" + (";font-weight:bold" if bold else "") + (";filter:invert(1)" if reverse else "")
    return html.escape(text) if style == f"color:{COLORS['default']}" else f'<span style="{style}">{html.escape(text)}</span>'
