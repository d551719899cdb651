"""The part of a page about what a network answered: accuracy by class, what is taken for what, and images."""

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from stepwise_jax.answers import Answers, Sample, most_confused
from stepwise_jax.drawing import Theme, make_picture
from stepwise_jax.page import Block, Heading, Images, Paragraph, Picture, Table
from stepwise_jax.units import percent

_IN_A_MATRIX = 30
_EACH_END, _CONFUSIONS = 10, 20


def answers_blocks(answers: Answers, level: int, name: str) -> list[Block]:
    """Classes, confusions and samples, under headings of a level; `name` tells the pictures of runs apart."""
    blocks: list[Block] = [Heading("Accuracy by class", level)]
    if len(answers.classes) <= _IN_A_MATRIX:
        blocks += [_class_picture(answers, name), Heading("What is taken for what", level), _matrix(answers, name)]
    else:
        blocks += [_ends(answers), Heading("What is taken for what", level), _confusions(answers)]
    if answers.samples:
        told = "First the wrong answers that the network was surest of, then images drawn evenly from the test set."
        blocks += [Heading("Test images", level), Paragraph(told), _images(answers)]
    return blocks


def _class_picture(answers: Answers, name: str) -> Picture:
    described = "Share of right answers for each class of the test set"
    return make_picture(f"classes{name}", described, [(described, partial(_draw_classes, answers))])


def _draw_classes(answers: Answers, theme: Theme) -> Figure:
    accuracy, count = 100 * answers.accuracy(), len(answers.classes)
    figure = Figure(figsize=(6.2, 0.6 + 0.22 * count), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(count), np.nan_to_num(accuracy), color=theme.runs[0], height=0.7)
    for place, value in enumerate(accuracy):
        words = "no images" if np.isnan(value) else f"{value:.1f}"
        axes.text(np.nan_to_num(value) + 0.8, place, words, va="center_baseline", fontsize=8)
    axes.set(yticks=range(count), xlim=(0, 109), ylim=(count - 0.4, -0.6), xlabel="Right answers (% of the class)")
    axes.set_yticklabels([_short(each) for each in answers.classes])
    axes.tick_params(axis="y", length=0)
    return figure


def _matrix(answers: Answers, name: str) -> Picture:
    described = "Confusion matrix of the test set: true class by row, answer by column, in per cent of the row"
    return make_picture(f"confusion{name}", described, [(described, partial(_draw_matrix, answers))])


def _draw_matrix(answers: Answers, theme: Theme) -> Figure:
    counts, size = answers.confusion(), len(answers.classes)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(3.4, 1.4 + 0.36 * size)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues" if theme.background == "#ffffff" else "bone", vmin=0, vmax=100)
    for row, column in np.argwhere(shares >= 0.5).tolist():
        value = shares[row, column]
        ink = _ink(value, theme)
        axes.text(column, row, f"{value:.0f}", ha="center", va="center_baseline", fontsize=7, color=ink)
    axes.set(xlabel="answer", ylabel="true class", xticks=range(size), yticks=range(size))
    axes.set_xticklabels([_short(each) for each in answers.classes], rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticklabels([_short(each) for each in answers.classes])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _ink(value: float, theme: Theme) -> str:
    """What can be read on a cell: the maps go from white to dark blue, and from black to white."""
    dark = value > 55 if theme.background == "#ffffff" else value < 45
    return "#ffffff" if dark else "#111111"


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _ends(answers: Answers) -> Table:
    """The classes with the lowest and the highest accuracy."""
    accuracy, totals = answers.accuracy(), np.bincount(answers.labels, minlength=len(answers.classes))
    order = [place for place in np.argsort(accuracy, kind="stable").tolist() if totals[place]]
    chosen = order if len(order) <= 2 * _EACH_END else [*order[:_EACH_END], *order[-_EACH_END:]]
    rows = tuple((answers.classes[place], percent(float(accuracy[place])), str(totals[place])) for place in chosen)
    return Table((f"class, lowest and highest of {len(order)}", "right", "test images"), rows)


def _confusions(answers: Answers) -> Table:
    found = most_confused(answers, _CONFUSIONS)
    rows = tuple((answers.classes[label], answers.classes[taken], str(times)) for label, taken, times in found)
    return Table(("true class", "answer", "test images"), rows, prose=True)


def _images(answers: Answers) -> Images:
    return Images(tuple((_png(sample.image), _caption(sample, answers.classes)) for sample in answers.samples))


def _caption(sample: Sample, classes: Sequence[str]) -> str:
    sure = f"{classes[sample.predicted]}, {100 * sample.probability:.0f} %"
    return f"✓ {sure}" if sample.label == sample.predicted else f"✗ {sure}; it is {classes[sample.label]}"


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
