"""The part of a page about what a network answered: accuracy by class, what is taken for what, and images."""

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from PIL import Image

from stepwise_jax.formatting import format_percent
from stepwise_jax.report.blocks import Block, Heading, Images, Paragraph, Picture, Table
from stepwise_jax.report.figures import WIDTH, Theme, ink_on, make_picture
from stepwise_jax.workdir.predictions import Predictions, Sample, most_confused

_IN_A_MATRIX = 30

_EACH_END, _CONFUSIONS = 10, 20


def predictions_blocks(answers: Predictions, level: int, name: str) -> list[Block]:
    """Classes, confusions and samples, under headings of a level; `name` tells the pictures of runs apart."""
    few = len(answers.classes) <= _IN_A_MATRIX
    blocks: list[Block] = [Heading("Accuracy by class", level), _class_picture(answers, name), _class_table(answers)]
    blocks += [Heading("What is taken for what", level), _matrix(answers, name) if few else _confusions(answers)]
    if answers.samples:
        told = "First the wrong answers that the network was surest of, then images drawn evenly from the test set."
        blocks += [Heading("Test images", level), Paragraph(told), _images(answers)]
    return blocks


def _chosen(answers: Predictions) -> Sequence[int]:
    """The classes that are shown: few of them all, of many those with the lowest and the highest accuracy."""
    if len(answers.classes) <= _IN_A_MATRIX:
        return range(len(answers.classes))
    accuracy = answers.accuracy()
    order = [place for place in np.argsort(accuracy, kind="stable").tolist() if not np.isnan(accuracy[place])]
    return order if len(order) <= 2 * _EACH_END else [*order[:_EACH_END], *order[-_EACH_END:]]


def _which(answers: Predictions) -> str:
    """`class`, and which of them are shown."""
    left_out = len(answers.classes) > len(_chosen(answers))
    return f"class, the lowest and the highest {_EACH_END} of {len(answers.classes)}" if left_out else "class"


def _class_picture(answers: Predictions, name: str) -> Picture:
    described = f"Share of right answers by {_which(answers)}"
    return make_picture(f"classes{name}", described, [(described, partial(_draw_classes, answers))])


def _draw_classes(answers: Predictions, theme: Theme) -> Figure:
    chosen = _chosen(answers)
    accuracy, count = 100 * answers.accuracy()[chosen], len(chosen)
    figure = Figure(figsize=(WIDTH, 0.6 + 0.22 * count), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(count), np.nan_to_num(accuracy), color=theme.runs[0], height=0.7)
    for place, value in enumerate(accuracy):
        words = "no images" if np.isnan(value) else f"{value:.1f}"
        axes.text(np.nan_to_num(value) + 0.8, place, words, va="center_baseline", fontsize=8)
    if count < len(answers.classes):
        axes.axhline(count / 2 - 0.5, color=theme.ink, linewidth=0.8, linestyle=":")
    axes.set(yticks=range(count), xlim=(0, 112), ylim=(count - 0.4, -0.6), xlabel="right answers (% of the class)")
    axes.set_yticklabels([_short(answers.classes[place]) for place in chosen])
    axes.tick_params(axis="y", length=0)
    return figure


def _class_table(answers: Predictions) -> Table:
    accuracy, counts = answers.accuracy(), answers.confusion()
    rows = []
    for place in _chosen(answers):
        wrong = np.where(np.arange(len(counts)) == place, 0, counts[place])
        taken = f"{answers.classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else "–"
        total, share = counts[place].sum(), accuracy[place]
        right = format_percent(None if np.isnan(share) else float(share))
        rows.append((answers.classes[place], right, f"{total:,}", f"{counts[place, place]:,}", taken))
    return Table((_which(answers), "accuracy", "test images", "right", "most often taken for"), tuple(rows))


def _matrix(answers: Predictions, name: str) -> Picture:
    described = "Confusion matrix of the test set: true class by row, answer by column, in per cent of the row"
    return make_picture(f"confusion{name}", described, [(described, partial(_draw_matrix, answers))])


def _draw_matrix(answers: Predictions, theme: Theme) -> Figure:
    counts, size = answers.confusion(), len(answers.classes)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(3.4, 1.4 + 0.36 * size)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    colors = LinearSegmentedColormap.from_list("shares", [theme.band, theme.runs[0]])
    axes.imshow(shares, cmap=colors, vmin=0, vmax=100)
    for row, column in np.argwhere(shares >= 0.5).tolist():
        value = shares[row, column]
        ink = ink_on(to_hex(colors(value / 100)))
        axes.text(column, row, f"{value:.0f}", ha="center", va="center_baseline", fontsize=7.5, color=ink)
    axes.set(xlabel="answer (% of the true class)", ylabel="true class", xticks=range(size), yticks=range(size))
    names = [_short(each) for each in answers.classes]
    slope = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    axes.set_xticklabels(names, **slope)
    axes.set_yticklabels(names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _confusions(answers: Predictions) -> Table:
    found = most_confused(answers, _CONFUSIONS)
    rows = tuple((answers.classes[label], answers.classes[taken], str(times)) for label, taken, times in found)
    return Table(("true class", "answer", "test images"), rows, prose=True)


def _images(answers: Predictions) -> Images:
    return Images(tuple((_png(sample.image), _caption(sample, answers.classes)) for sample in answers.samples))


def _caption(sample: Sample, classes: Sequence[str]) -> str:
    sure = f"{classes[sample.predicted]}, {100 * sample.probability:.0f} %"
    return f"✓ {sure}" if sample.label == sample.predicted else f"✗ {sure}; it is {classes[sample.label]}"


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
