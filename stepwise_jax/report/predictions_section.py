"""The section about the predictions of a network: accuracy by class, confusions, and images."""

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from PIL import Image

from stepwise_jax.formatting import format_percent
from stepwise_jax.report.blocks import Block, Heading, ImageGrid, Paragraph, Picture, Table
from stepwise_jax.report.figures import WIDTH, Theme, contrasting_color, make_picture
from stepwise_jax.workdir.predictions import Predictions, Sample, most_confused

_MATRIX_CLASSES = 30
"""Up to this many classes, all are shown, and their confusions as a matrix."""

_EACH_END, _CONFUSIONS = 10, 20


def predictions_blocks(predictions: Predictions, level: int, name: str) -> list[Block]:
    """Return the blocks for classes, confusions and samples.

    Args:
      predictions: of one run.
      level: of the headings.
      name: a suffix that makes the names of the pictures unique on the page.
    """
    few = len(predictions.classes) <= _MATRIX_CLASSES
    blocks: list[Block] = [Heading("Accuracy by class", level)]
    blocks += [_class_picture(predictions, name), _class_table(predictions)]
    blocks += [Heading("Confusions", level), _matrix(predictions, name) if few else _confusions(predictions)]
    if predictions.samples:
        explanation = (
            "First the wrong predictions with the highest probability, then images at even intervals in the test set."
        )
        blocks += [Heading("Test images", level), Paragraph(explanation), _images(predictions)]
    return blocks


def _shown_classes(predictions: Predictions) -> Sequence[int]:
    """The classes to show: all of them, or those with the lowest and highest accuracy if there are many."""
    if len(predictions.classes) <= _MATRIX_CLASSES:
        return range(len(predictions.classes))
    accuracy = predictions.class_accuracy()
    order = [index for index in np.argsort(accuracy, kind="stable").tolist() if not np.isnan(accuracy[index])]
    return order if len(order) <= 2 * _EACH_END else [*order[:_EACH_END], *order[-_EACH_END:]]


def _class_label(predictions: Predictions) -> str:
    """The label `class`, with the selection of classes that is shown."""
    left_out = len(predictions.classes) > len(_shown_classes(predictions))
    return f"class, the lowest and the highest {_EACH_END} of {len(predictions.classes)}" if left_out else "class"


def _class_picture(predictions: Predictions, name: str) -> Picture:
    description = f"Accuracy by {_class_label(predictions)}"
    return make_picture(f"classes{name}", description, [(description, partial(_draw_classes, predictions))])


def _draw_classes(predictions: Predictions, theme: Theme) -> Figure:
    shown = _shown_classes(predictions)
    accuracy, count = 100 * predictions.class_accuracy()[shown], len(shown)
    figure = Figure(figsize=(WIDTH, 0.6 + 0.22 * count), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(count), np.nan_to_num(accuracy), color=theme.palette[0], height=0.7)
    for index, value in enumerate(accuracy):
        label = "no images" if np.isnan(value) else f"{value:.1f}"
        axes.text(np.nan_to_num(value) + 0.8, index, label, va="center_baseline", fontsize=8)
    if count < len(predictions.classes):
        axes.axhline(count / 2 - 0.5, color=theme.foreground, linewidth=0.8, linestyle=":")
    axes.set(yticks=range(count), xlim=(0, 112), ylim=(count - 0.4, -0.6), xlabel="accuracy (% of the class)")
    axes.set_yticklabels([_short(predictions.classes[index]) for index in shown])
    axes.tick_params(axis="y", length=0)
    return figure


def _class_table(predictions: Predictions) -> Table:
    accuracy, counts = predictions.class_accuracy(), predictions.confusion_matrix()
    rows = []
    for index in _shown_classes(predictions):
        wrong = np.where(np.arange(len(counts)) == index, 0, counts[index])
        mistake = f"{predictions.classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else "–"
        total, share = counts[index].sum(), accuracy[index]
        score = format_percent(None if np.isnan(share) else float(share))
        rows.append((predictions.classes[index], score, f"{total:,}", f"{counts[index, index]:,}", mistake))
    header = (_class_label(predictions), "accuracy", "test images", "correct", "most often confused with")
    return Table(header, tuple(rows))


def _matrix(predictions: Predictions, name: str) -> Picture:
    description = "Confusion matrix of the test set: true class by row, prediction by column, in percent of the row"
    return make_picture(f"confusion{name}", description, [(description, partial(_draw_matrix, predictions))])


def _draw_matrix(predictions: Predictions, theme: Theme) -> Figure:
    counts, size = predictions.confusion_matrix(), len(predictions.classes)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(3.4, 1.4 + 0.36 * size)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    colors = LinearSegmentedColormap.from_list("shares", [theme.band, theme.palette[0]])
    axes.imshow(shares, cmap=colors, vmin=0, vmax=100)
    for row, column in np.argwhere(shares >= 0.5).tolist():
        value = shares[row, column]
        foreground = contrasting_color(to_hex(colors(value / 100)))
        axes.text(column, row, f"{value:.0f}", ha="center", va="center_baseline", fontsize=7.5, color=foreground)
    axes.set(xlabel="prediction (% of the true class)", ylabel="true class", xticks=range(size), yticks=range(size))
    names = [_short(each) for each in predictions.classes]
    slope = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    axes.set_xticklabels(names, **slope)
    axes.set_yticklabels(names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _confusions(predictions: Predictions) -> Table:
    rows = tuple(
        (predictions.classes[label], predictions.classes[predicted], str(count))
        for label, predicted, count in most_confused(predictions, _CONFUSIONS)
    )
    return Table(("true class", "prediction", "test images"), rows, prose=True)


def _images(predictions: Predictions) -> ImageGrid:
    classes = predictions.classes
    return ImageGrid(tuple((_png(sample.image), _caption(sample, classes)) for sample in predictions.samples))


def _caption(sample: Sample, classes: Sequence[str]) -> str:
    prediction = f"{classes[sample.predicted]}, {100 * sample.probability:.0f} %"
    return f"✓ {prediction}" if sample.label == sample.predicted else f"✗ {prediction}; it is {classes[sample.label]}"


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
