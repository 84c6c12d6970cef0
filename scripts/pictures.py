"""Pictures from results/*.json, as SVG without scripts or fonts of its own: one line a curve, its 95 % interval a band.

`scripts/docs.py generate` writes them beside the pages; a picture is text and changes only when its result does. Grey is the
same on a light page and on a dark one, curves differ in dash as well as in colour, and each is named at its end.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import pages

from skillweave.measure.stats import student
from skillweave.tasks.sprites import Withheld, is_picture, pixels

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Told apart with any kind of colour vision (Okabe and Ito), and on white and black."""
DASHES = ("none", "8 3", "2 3", "8 3 2 3")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 430, 300, 48, 112, 34, 44
Point = tuple[float, float, float, float]
"""x, mean, low, high."""


@dataclass(frozen=True)
class Curve:
    name: str
    points: tuple[Point, ...]
    level: float | None = None
    """Height of a thin line of its own: what is reached by chance."""


@dataclass(frozen=True)
class Panel:
    title: str
    across: str
    curves: tuple[Curve, ...]
    log: bool = False
    """Whether heights are powers of ten."""
    top: float = 1.0
    """The greatest height, a multiple of a half; other than 1, heights are numbers and not shares."""
    marks: Mapping[float, str] | None = None
    """What stands below each x; percentages unless given."""


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels side by side."""
    body = "\n".join(f'<g transform="translate({i * WIDTH} 0)">\n{_panel(panel)}\n</g>' for i, panel in enumerate(panels))
    size = f'viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#808080"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {style}>\n<title>{escape(title)}</title>\n{body}\n</svg>\n'
    )


def _panel(panel: Panel) -> str:
    points = [point for curve in panel.curves for point in curve.points]
    means = [y for _, y, *_ in points]
    right = max(x for x, *_ in points) or 1.0
    if panel.log:
        low, high = (f(math.log10(y) for y in means) for f in (min, max))
        step = max(1, math.ceil((high - low) / 5))
        low, high = math.floor(low), math.floor(low) + step * math.ceil((high - math.floor(low)) / step)
        marks = [10.0**power for power in range(low, high + 1, step)]
    else:
        low, high = 0.0, panel.top
        marks = [0.0, 0.25, 0.5, 0.75, 1.0] if high == 1.0 else [at / 2 for at in range(round(2 * high) + 1)]

    def across(x: float) -> float:
        return LEFT + x / right * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        place = (math.log10(max(y, 1e-300)) if panel.log else y) - low
        return HEIGHT - BOTTOM - min(max(place / ((high - low) or 1.0), 0.0), 1.0) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text x="{LEFT}" y="18" font-weight="600">{escape(panel.title)}</text>']
    for mark in marks:
        name = f"{mark:,.0f}" if mark < 1e5 else f"{mark:.0e}".replace("e+0", "e")
        if not panel.log:
            name = f"{mark:.0%}" if panel.top == 1.0 else f"{mark:g}"
        parts.append(f'<path d="M{LEFT} {up(mark):.1f}H{WIDTH - RIGHT}" stroke="#808080" stroke-opacity=".25"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(mark) + 4:.1f}" text-anchor="end">{name}</text>')
    for x in sorted({x for x, *_ in points}):
        label = panel.marks[x] if panel.marks else f"{x:.0%}"
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<text x="{across(right / 2):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.across)}</text>')
    for curve, (colour, dash), y in zip(panel.curves, zip(COLOURS, DASHES, strict=True), _labels(panel, up), strict=False):
        parts.append(_curve(curve, colour, dash, across, up, y))
    return "\n".join(parts)


def _curve(curve: Curve, colour: str, dash: str, across: Callable, up: Callable, label: float) -> str:
    line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y, *_ in curve.points)
    band = [f"{across(x):.1f},{up(high):.1f}" for x, _, _, high in curve.points]
    band += [f"{across(x):.1f},{up(low):.1f}" for x, _, low, _ in reversed(curve.points)]
    end = f'x="{WIDTH - RIGHT + 8}" y="{label:.1f}"'
    parts = [
        f'<polygon points="{" ".join(band)}" fill="{colour}" fill-opacity=".15"/>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>',
        f'<text {end} fill="{colour}">{escape(curve.name)}</text>',
    ]
    if curve.level is not None:
        level = f"M{LEFT} {up(curve.level):.1f}H{WIDTH - RIGHT}"
        parts.append(f'<path d="{level}" stroke="{colour}" stroke-dasharray="1 4"/>')
    return "\n".join(parts)


def _labels(panel: Panel, up: Callable) -> list[float]:
    """Heights of the names at the ends of the curves, moved apart where they would lie on each other."""
    order = sorted(range(len(panel.curves)), key=lambda i: up(panel.curves[i].points[-1][1]))
    heights, last = [0.0] * len(order), -math.inf
    for i in order:
        heights[i] = last = max(up(panel.curves[i].points[-1][1]) + 4, last + 14)
    over = max(0.0, last - (HEIGHT - BOTTOM + 4))
    return [height - over for height in heights]


def curve(result: Mapping, name: str, metric: str, series: str, start: str, blind: str = "") -> Curve:
    """The curve of `metric` over the arms called `series N %`, from the arm `start` at 0 on."""
    arms = result["values"]["arms"]
    found = {0.0: arms[start].get(metric)}
    found |= {float(arm.split()[1]) / 100: values.get(metric) for arm, values in arms.items() if arm.startswith(f"{series} ")}
    points = tuple((x, v["mean"], v["low"], v["high"]) for x, v in sorted(found.items()) if v and v["mean"] is not None)
    return Curve(name, points, arms[start][blind]["mean"] if blind else None)


def in_logs(result: Mapping, metric: str) -> dict:
    """The result with `metric` averaged over its runs in logarithms, since a mean of perplexities is that of the largest."""
    arms = {}
    for arm, values in result["values"]["arms"].items():
        logs = [math.log(run[arm][metric]) for run in result["values"]["runs"] if run[arm].get(metric)]
        arms[arm] = dict(values)
        if logs:
            mean = student(logs)
            arms[arm][metric] = {"mean": math.exp(mean.value), "low": math.exp(mean.low), "high": math.exp(mean.high)}
    return {"values": {"arms": arms}}


def p31() -> str:
    """What is left of each ability of a base whose MLPs were narrowed, and what the text costs by each score."""
    result = pages.read(pages.RESULTS / "p31.json")
    suites = {"facts": "facts blind", "rules": "rules blind", "formats": "", "formats sound": ""}
    left = tuple(curve(result, name, name, "ppm", "full", blind) for name, blind in suites.items())
    logs = in_logs(result, "perplexity")
    right = tuple(curve(logs, name, "perplexity", name, "full") for name in ("ppm", "vow", "pon", "random"))
    across = "share of MLP neurons cut"
    panels = [Panel("right answers, by ppm", across, left), Panel("perplexity (log scale)", across, right, log=True)]
    return svg("Abilities and perplexity of Gemma 3 270M against the share of MLP neurons that were cut", panels)


def p47() -> str:
    """How well six skills do their six tasks by strengths that are ever finer, and a seventh task by the number of examples."""
    arms = pages.read(pages.RESULTS / "p47.json")["values"]["arms"]

    def points(names: Sequence[str], metric: str) -> tuple[Point, ...]:
        found = [(i, arms[name][metric]) for i, name in enumerate(names)]
        return tuple((float(i), v["mean"], v["low"], v["high"]) for i, v in found)

    grains = ("grid", "global", "layer", "block")
    left = Curve("learned", points(grains, "normalised"), arms["sum"]["normalised"]["mean"])
    shots = sorted(int(name.split()[1]) for name in arms if name.startswith("block, "))
    names = {"strengths": "block", "LoRA, rank 1": "lora 1", "LoRA, rank 8": "lora 8"}
    start = arms["held-out task, base"]["exact"]["mean"]
    right = [Curve(name, points([f"{arm}, {n} shots" for n in shots], "exact"), start) for name, arm in names.items()]
    panels = [
        Panel("six tasks at once (dots: plain sum)", "strengths", (left,), marks=dict(enumerate(grains))),
        Panel("exact answers, seventh task (dots: base)", "examples", tuple(right), marks=dict(enumerate(map(str, shots)))),
    ]
    return svg("Paper 47 at small scale: strengths of six skills, ever finer, and a seventh task from few examples", panels)


def shares(title: str, result: Mapping, measures: Mapping[str, str]) -> str:
    """A row an arm, a bar a measure, each with its name once and with its 95 % interval as a line."""
    arms, row = result["values"]["arms"], 14 * len(measures) + 10
    height = TOP + row * len(arms) + BOTTOM
    parts = [f'<text x="8" y="18" font-weight="600">{escape(title)}</text>']
    for k, (measure, name) in enumerate(measures.items()):
        parts.append(f'<text x="{150 + 150 * k}" y="{height - 12}" fill="{COLOURS[k]}">■ {escape(name)}</text>')
        for i, values in enumerate(arms.values()):
            y, found = TOP + row * i + 14 * k, values[measure]
            low, mean, high = (150 + 400 * min(max(found[part], 0.0), 1.0) for part in ("low", "mean", "high"))
            parts.append(f'<rect x="150" y="{y}" width="{mean - 150:.1f}" height="10" fill="{COLOURS[k]}" fill-opacity=".7"/>')
            parts.append(f'<path d="M{low:.1f} {y + 5}H{high:.1f}" stroke="#808080" stroke-width="2"/>')
            parts.append(f'<text x="{max(mean, high) + 6:.1f}" y="{y + 9}" font-size="10">{found["mean"]:.0%}</text>')
    parts += [f'<text x="142" y="{TOP + row * i + 14}" text-anchor="end">{escape(arm)}</text>' for i, arm in enumerate(arms)]
    size = f'viewBox="0 0 600 {height}" width="600" height="{height}"'
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#808080"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {style}>\n<title>{escape(title)}</title>\n{body}\n</svg>\n'
    )


def p42() -> str:
    """What each model, and the two joined, answer rightly."""
    measures = {"key sums": "sums of unseen keys", "one key": "one unseen key", "numeric": "sums of numbers"}
    return shares("Right answers of each model and of the two joined", pages.read(pages.RESULTS / "p42.json"), measures)


def p32() -> str:
    """Right answers of each kind of input by arm, and of the new task by the number of examples."""
    arms = pages.read(pages.RESULTS / "p32.json")["values"]["arms"]

    def line(name: str, arm: str, metrics: Sequence[str]) -> Curve:
        found = [(i, arms[arm][metric]) for i, metric in enumerate(metrics)]
        return Curve(name, tuple((float(i), v["mean"], v["low"], v["high"]) for i, v in found))

    kinds = [metric for metric in arms["declared"] if "weights" not in metric]
    left = tuple(line(arm, arm, kinds) for arm in ("declared", "separate", "dense active", "gate"))
    shots = list(arms["reuse"])
    names = {"reuse": "these skills", "control: two others": "two others", "new experts": "new ones"}
    right = tuple(line(name, arm, shots) for arm, name in names.items())
    words = [metric.removeprefix("both ") for metric in shots]
    panels = [
        Panel("right answers by kind", "kind of input", left, marks=dict(enumerate(kinds))),
        Panel(
            "new task that needs two skills", "examples (after the stroke: for new ones)", right, marks=dict(enumerate(words))
        ),
    ]
    return svg("Paper 32 at small scale: five kinds of input by arm, and a new task from few examples", panels)


def p40() -> str:
    """What of the gain a graft keeps, and how wrong its confidence is, by the share of the weights that it may hold."""
    arms = pages.read(pages.RESULTS / "p40.json")["values"]["arms"]
    sizes = sorted(
        (arm.removeprefix("learned ") for arm in arms if arm.startswith("learned ")), key=lambda size: float(size[:-2])
    )

    def line(name: str, metric: str, arm: str = "") -> Curve:
        found = [(float(i), arms[arm or f"{name} {size}"][metric]) for i, size in enumerate(sizes)]
        return Curve(name, tuple((i, v["mean"], v["low"], v["high"]) for i, v in found))

    marks, across, ways = dict(enumerate(sizes)), "share of the weights", ("learned", "top", "random")
    panels = [
        Panel("gain of fine-tuning kept", across, tuple(line(way, "kept") for way in ways), marks=marks),
        Panel(
            "calibration error", across, (*(line(way, "ece") for way in ways), line("all weights", "ece", "full")), marks=marks
        ),
    ]
    return svg("Paper 40 at small scale: what is kept of a fine-tuned skill, by the share of its weights", panels)


def p01() -> str:
    """Right answers of each way to adapt by the number of examples, in both families."""
    arms = pages.read(pages.RESULTS / "p01.json")["values"]["arms"]

    def panel(family: str) -> Panel:
        ways = {"gate": [], "fixed": [], "lorahub": [], "fresh LoRA": []}
        for name, values in arms.items():
            way, _, count = name.removeprefix(f"{family}: ").rpartition(", ")
            if name.startswith(f"{family}: ") and way in ways:
                found = values["exact"]
                ways[way].append((float(count), found["mean"], found["low"], found["high"]))
        top = arms[f"{family}: right skill"]["exact"]["mean"]
        curves = tuple(Curve(way, tuple(points), top if way == "gate" else None) for way, points in ways.items())
        marks = {x: f"{x:.0f}" for x, *_ in ways["gate"]}
        return Panel(f"{family}: right answers", "examples", curves, marks=marks)

    families = dict.fromkeys(name.partition(": ")[0] for name in arms)
    title = "Right answers of each way to adapt by the number of examples; thin: the right skill for every input"
    return svg(title, [panel(family) for family in families])


GREYS = ("#1b2a41", "#3d5a80", "#e0a458", "#fff3d6")
"""Of generated pictures: two dark ones outside a shape, two light ones inside."""


def p44() -> str:
    """The first asked pictures of seed 0: as they should be, and as each arm draws them."""
    drawn = pages.read(pages.RESULTS / "p44.json")["values"]["runs"][0]["pictures"]
    asked = [e.completion for e in Withheld.of(0).asked.take(3, "test")]
    names = ("sum", "sum + stage 2", "joint", "PLP", "PLP + stage 2", "control: shown the pair")
    columns = {"as asked for": asked} | {name: drawn[name][:3] for name in names}
    parts = []
    for i, (name, pictures) in enumerate(columns.items()):
        short = name.removeprefix("control: ")
        parts.append(f'<text x="{12 + 104 * i + 40}" y="18" text-anchor="middle" font-size="11">{escape(short)}</text>')
        parts += [_sprite(picture, 12 + 104 * i, 28 + 92 * k) for k, picture in enumerate(pictures)]
    title, size = (
        "Three asked pictures of seed 0, as they should be and as each arm draws them",
        f"{104 * len(columns) + 8} 312",
    )
    style = 'font-family="system-ui, sans-serif" fill="#808080"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" {style}>'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>\n"])


def _sprite(picture: str, left: int, top: int) -> str:
    """One picture, five units a pixel; a dash where the answer is none."""
    if not is_picture(picture):
        return f'<text x="{left + 40}" y="{top + 44}" text-anchor="middle">–</text>'
    runs: dict[str, list[str]] = {}
    for y, row in enumerate(pixels(picture)):
        for run in re.finditer(r"(.)\1*", row):
            runs.setdefault(run[1], []).append(f"M{run.start()} {y}h{len(run[0])}v1h-{len(run[0])}z")
    paths = "".join(f'<path fill="{GREYS[int(grey)]}" d="{"".join(found)}"/>' for grey, found in sorted(runs.items()))
    return f'<g transform="translate({left} {top}) scale(5)" shape-rendering="crispEdges">{paths}</g>'


def p49() -> str:
    """What each way of learning a field costs in general text, where all have learned as much of it."""
    arms = pages.read(pages.RESULTS / "p49.json")["values"]["arms"]

    def line(name: str) -> Curve:
        found = {int(metric.split()[2]) / 100: v for metric, v in arms[name].items() if metric.startswith("rise at")}
        return Curve(name, ((0.0, 0.0, 0.0, 0.0), *((x, v["mean"], v["low"], v["high"]) for x, v in sorted(found.items()))))

    ways = tuple(map(line, ("full", "LoRA", "replay", "ADEPT")))
    layers = tuple(map(line, ("most", "random", "even", "ADEPT")))
    top = max(1.5, math.ceil(2 * max(y for curve in (*ways, *layers) for _, y, *_ in curve.points)) / 2)
    across = "way to the field's loss that all reach"
    panels = [Panel("rise of general loss, nats", across, ways, top=top), Panel("by layers copied", across, layers, top=top)]
    return svg(
        "Rise of general loss of a small model while it learns an invented field, by method and by copied layers", panels
    )


def along(runs: Sequence[Mapping], arm: str, metric: str, every: float = 1.0) -> Curve:
    """The curve that each run of a result keeps as a list, over the seeds; `every` is how far apart its points are."""
    lists = [run[arm][metric] for run in runs]
    means = [student(values) for values in zip(*lists, strict=True)]
    return Curve(arm, tuple((i * every, e.value, e.low, e.high) for i, e in enumerate(means)))


def numbered(title: str, across: str, curves: Sequence[Curve], top: float = 1.0) -> Panel:
    """A panel whose x are counts, every second one said."""
    places = sorted({x for curve in curves for x, *_ in curve.points})
    marks = {x: f"{x:.0f}" if i % 2 == 0 else "" for i, x in enumerate(places)}
    return Panel(title, across, tuple(curves), marks=marks, top=top)


def p23() -> str:
    """Right answers along the rounds of each arm, and the temperatures that B-STaR chose."""
    runs = pages.read(pages.RESULTS / "p23.json")["values"]["runs"]
    arms = ("online RFT", "fixed", "B-STaR")
    left = numbered("right answers, greedy", "rounds done", [along(runs, arm, "curve") for arm in arms])
    right = numbered("temperature of the next round", "rounds done", [along(runs, arm, "temperature") for arm in arms], top=1.5)
    return svg("Right answers and temperatures by round of three ways to train on one's own answers", [left, right])


def p39() -> str:
    """Held-out accuracy along GRPO in each single way of asking, with a divergence, and in ways that are drawn."""
    result = pages.read(pages.RESULTS / "p39.json")["values"]["runs"]
    every = result[0]["mixture"]["every"]
    singles, others = ("plain", "reversed", "scratchpad", "tagged"), ("plain", "plain + KL", "mixture")
    panels = [
        numbered(title, "GRPO steps", [along(result, arm, metric, every) for arm in arms], top)
        for title, arms, metric, top in (
            ("asked plainly: single ways", singles, "curve", 1.0),
            ("asked plainly: the others", others, "curve", 1.0),
            ("entropy, nats a token", others, "nats", 1.0),
        )
    ]
    return svg("Held-out accuracy and entropy of a small model along GRPO, by how its problems were asked", panels)


def p05() -> str:
    """What attempts earn while each arm practises, and how deep it nests the functions that it never nested."""
    result = pages.read(pages.RESULTS / "p05.json")["values"]
    arms, runs = result["arms"], result["runs"]

    def earned(arm: str, parts: int = 10) -> Curve:
        """The mean reward of each part of the samples, or of each round where there are fewer."""
        points, count = [], min(parts, len(runs[0][arm]["rewards"]))
        for k in range(count):
            each = []
            for run in runs:
                rewards = run[arm]["rewards"]
                part = rewards[k * len(rewards) // count : (k + 1) * len(rewards) // count]
                each.append(sum(part) / len(part))
            found = student(each)
            points.append(((k + 1) / count, found.value, found.low, found.high))
        return Curve(arm, tuple(points))

    def held(arm: str) -> Curve:
        found = [(float(depth), arms[arm][f"held-out {depth}"]) for depth in (1, 2, 3)]
        return Curve(arm, tuple((x, v["mean"], v["low"], v["high"]) for x, v in found))

    def short(curve: Curve) -> Curve:
        return replace(curve, name=curve.name.replace("depths 1 and 2", "1 and 2"))

    ways = ("RL, depth 2", "rejection, depth 2", "RL, depths 1 and 2", "RL, depth 1")
    tenths = {k / 10: f"{10 * k} %" if k % 2 == 0 else "" for k in range(1, 11)}
    practice, nesting = (tuple(short(curve(way)) for way in ways) for curve in (earned, held))
    panels = [
        Panel("right attempts while practising", "share of the samples", practice, marks=tenths),
        Panel("held-out functions, right", "depth", nesting, marks={1: "1", 2: "2", 3: "3"}),
    ]
    return svg("Paper 5 at small scale: what practice earns, and how deep functions nest that were never practised", panels)


def course(runs: Sequence[Mapping], arm: str, name: str = "") -> Curve:
    """What attempts earned from the first steps of an arm to the last, over the seeds; across is the share of its steps."""
    found = [student(rewards) for rewards in zip(*(run[arm]["rewards"] for run in runs), strict=True)]
    return Curve(name or arm, tuple(((i + 1) / len(found), e.value, e.low, e.high) for i, e in enumerate(found)))


def p03() -> str:
    """The reward while the skill vector is learned in the source, and while the target is practised itself."""
    runs = pages.read(pages.RESULTS / "p03.json")["values"]["runs"]
    curves = course(runs, "SFT + v", "in the source: v"), course(runs, "target RL", "in the target")
    panel = Panel("right attempts while practising", "share of the steps", curves)
    return svg("Paper 3 at small scale: attempts that are right while practising", [panel])


def p04() -> str:
    """The reward while it is learned from, and right answers at each level of newness."""
    values = pages.read(pages.RESULTS / "p04.json")["values"]
    levels = ("iid", "composition", "zero-shot")

    def line(arm: str) -> Curve:
        found = [(float(i), values["arms"][arm][level]) for i, level in enumerate(levels)]
        return Curve(arm, tuple((i, v["mean"], v["low"], v["high"]) for i, v in found))

    ways = ("composites -> SFT", "RL", "atoms -> SFT", "atoms -> RL")
    panels = [
        Panel(
            "right attempts while learning",
            "share of the steps",
            tuple(course(values["runs"], arm) for arm in ("RL", "atoms -> RL")),
        ),
        Panel("right answers, test people", "paths", tuple(map(line, ways)), marks=dict(enumerate(levels))),
    ]
    return svg("Paper 4 at small scale: attempts that are right while learning, and right answers by newness", panels)


PICTURES: dict[str, Callable[[], str]] = {
    "papers/1.svg": p01,
    "papers/3.svg": p03,
    "papers/4.svg": p04,
    "papers/5.svg": p05,
    "papers/23.svg": p23,
    "papers/31.svg": p31,
    "papers/32.svg": p32,
    "papers/39.svg": p39,
    "papers/40.svg": p40,
    "papers/42.svg": p42,
    "papers/44.svg": p44,
    "papers/47.svg": p47,
    "papers/49.svg": p49,
}
