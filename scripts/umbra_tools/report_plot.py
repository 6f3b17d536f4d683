"""What the sections of the report's page are made of: tables, axes, bars and lines as HTML and SVG.

Everything that comes from a log or a configuration goes through esc().
"""

import html
import math

# Distinguishable on light and dark ground, and without colour vision (Okabe and Ito).
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#b8a800"]
OTHER = "#888888"
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 940, 260, 74, 24, 42, 14


def esc(value):
    """Text for HTML; what XML cannot hold becomes a question mark."""
    text = "".join(c if c in "\n\t" or c >= " " and not 0xd800 <= ord(c) < 0xe000
                   and ord(c) not in (0xfffe, 0xffff) else "?" for c in str(value))
    return html.escape(text, quote=True)


def count(value):
    return f"{value:,}"


def share(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


def seconds(ticks, hz):
    return f"{ticks / hz:.3f}"


def table(head, rows, left=(0,), last_is_sum=False, ident=""):
    """head: labels; rows: lists of cells, escaped here; left: columns of text."""
    def line(cells, tag):
        return "".join(f'<{tag}{" class=" + chr(34) + "text" + chr(34) if i in left else ""}>'
                       f"{esc(c)}</{tag}>" for i, c in enumerate(cells))
    out = [f'<div class="wide"><table{f" id={chr(34)}{esc(ident)}{chr(34)}" if ident else ""}>'
           f"<thead><tr>{line(head, 'th')}</tr></thead><tbody>"]
    for i, cells in enumerate(rows):
        mark = ' class="sum"' if last_is_sum and i == len(rows) - 1 else ""
        out.append(f"<tr{mark}>{line(cells, 'td')}</tr>")
    out.append("</tbody></table></div>")
    return "\n".join(out)


def nice_ticks(most, wanted=5):
    """Round numbers from 0 to at least `most`."""
    if most <= 0:
        return [0, 1]
    step = 10 ** math.floor(math.log10(most / wanted))
    for factor in (1, 2, 5, 10):
        if most / (step * factor) <= wanted:
            break
    step *= factor
    return [i * step for i in range(math.ceil(most / step - 1e-9) + 1)]


def tick_label(value):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def svg(width, height, label, parts):
    plot = ' class="plot"' if width == WIDTH else ""
    return (f'<div class="wide"><svg{plot} viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{esc(label)}">' + "".join(parts)
            + "</svg></div>")


def text(x, y, what, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{esc(what)}</text>'


class Axes:
    """A plot area with labelled axes: x from x0 to x1, y from 0 up."""

    def __init__(self, x0, x1, most, x_label, y_label):
        self.x0, self.x1 = x0, x1 if x1 > x0 else x0 + 1
        self.ticks = nice_ticks(most)
        self.parts, self.x_label, self.y_label = [], x_label, y_label
        self.draw()

    def x(self, value):
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        return HEIGHT - BOTTOM - value / self.ticks[-1] * (HEIGHT - BOTTOM - TOP)

    def draw(self):
        for tick in self.ticks:
            y = self.y(tick)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
                              f'y2="{y:.1f}"/>')
            self.parts.append(text(LEFT - 6, y + 4, tick_label(tick), "end"))
        self.draw_x()
        self.parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                          f'y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
        self.parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_label))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(text(14, middle, self.y_label, "middle",
                               f' transform="rotate(-90 14 {middle:.1f})"'))

    def draw_x(self):
        for tick in nice_ticks(self.x1 - self.x0, 9):
            if tick <= (self.x1 - self.x0) * 1.0001:
                x = self.x(self.x0 + tick)
                self.parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" '
                                  f'y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}"/>')
                self.parts.append(text(x, HEIGHT - BOTTOM + 18, f"{tick:g}"))

    def bar(self, x0, x1, y0, y1, colour, hint=""):
        left, right = self.x(x0), self.x(x1)
        high, low = self.y(y1), self.y(y0)
        return (f'<rect x="{left:.2f}" y="{high:.2f}" width="{max(0.3, right - left):.2f}" '
                f'height="{max(0, low - high):.2f}" fill="{colour}">'
                + (f"<title>{esc(hint)}</title>" if hint else "") + "</rect>")


class Bars(Axes):
    """The same with one bar for each of `labels`."""

    def __init__(self, labels, most, x_label, y_label):
        self.labels = labels
        super().__init__(0, len(labels), most, x_label, y_label)

    def draw_x(self):
        for i, label in enumerate(self.labels):
            self.parts.append(text(self.x(i + 0.5), HEIGHT - BOTTOM + 18, label))

    def add(self, i, value, colour, hint):
        self.parts.append(self.bar(i + 0.1, i + 0.9, 0, value, colour, hint))


def share_bar(parts, label):
    """A bar that is divided as `parts` are: [(name, number, colour)]."""
    whole, at, out = sum(n for _, n, _ in parts), 0, []
    for name, n, colour in parts:
        if n:
            width = (WIDTH - LEFT - RIGHT) * n / whole
            out.append(f'<rect x="{LEFT + at:.2f}" y="2" width="{width:.2f}" height="22" fill="{colour}">'
                       f"<title>{esc(name)}: {n:,}, {share(n, whole)}</title></rect>")
            at += width
    return legend([(f"{name}: {n:,}", colour) for name, n, colour in parts]) + svg(
        WIDTH, 26, label, out)


def legend(entries):
    return '<p class="legend">' + " ".join(
        f'<span><span class="key" style="background:{colour}"></span>{esc(name)}</span>'
        for name, colour in entries) + "</p>"
