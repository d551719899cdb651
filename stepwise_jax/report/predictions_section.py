"""The section about the predictions of a network: accuracy by class, confusions, and images."""

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from stepwise_jax.formatting import format_percent, replace_unprintable
from stepwise_jax.report.blocks import Block, Folded, Heading, ImageGrid, Paragraph, Picture, Table
from stepwise_jax.report.figures import DARK, WIDTH, Theme, contrasting_ink, make_picture, wrapped
from stepwise_jax.workdir.predictions import Predictions, Sample, most_confused

_MATRIX_CLASSES = 30
"""Up to this many classes, all are shown, and their confusions as a matrix."""

_EACH_END, _CONFUSIONS, _WRONG = 10, 20, 100

_CLASS_WIDTH = 24
"""Characters in a line of a class's name in a figure."""

_CONFUSIONS_LEAD = (
    "True classes by row, predictions by column, in percent of the row; look for dark fields off the diagonal."
)


def predictions_blocks(predictions: Predictions, level: int, name: str, pictures: bool = True) -> list[Block]:
    """Return the sections about wrong predictions, classes, confusions and images.

    Args:
      predictions: of one run.
      level: of the headings.
      name: a suffix that makes the names of the pictures unique on the page.
      pictures: whether to draw figures; otherwise there are the tables and images alone.
    """
    few = len(predictions.classes) <= _MATRIX_CLASSES
    classes = [_class_picture(predictions, name)] if pictures else []
    confusions = _matrix(predictions, name) if few and pictures else _confusions(predictions)
    return [
        *_wrong_blocks(predictions, level, name),
        *_image_blocks(predictions, level, name),
        Heading("Accuracy by class", level),
        Paragraph("Look for classes far below the others, and at what they are taken for."),
        *classes,
        _class_table(predictions),
        Heading("Confusions", level),
        Paragraph(_CONFUSIONS_LEAD if few and pictures else "The most frequent mistakes: look for pairs of classes."),
        confusions,
    ]


def _wrong_blocks(predictions: Predictions, level: int, name: str) -> list[Block]:
    """The wrong predictions of the highest probability: their images, and a table of more of them."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    if not len(wrong) or not len(predictions.ids):
        return []
    shown = [sample for sample in predictions.samples if sample.label != sample.predicted]
    order = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_WRONG].tolist()
    title = "All" if len(wrong) <= _WRONG else f"The first {_WRONG} of {len(wrong):,}"
    return [
        Heading("Wrong predictions", level),
        Paragraph(
            "Those with the highest probability first; look for labels that are wrong, and for what the images share."
        ),
        *([_images(shown, predictions.classes, f"wrong{name}")] if shown else []),
        Folded(f"{title} wrong predictions, by file", (_wrong_table(predictions, order),)),
    ]


def _wrong_table(predictions: Predictions, rows: Sequence[int]) -> Table:
    classes = predictions.classes
    table = (
        (
            replace_unprintable(str(predictions.ids[row])),
            classes[predictions.predicted[row]],
            f"{100 * predictions.confidence[row]:.0f} %",
            classes[predictions.labels[row]],
        )
        for row in rows
    )
    return Table(("image", "prediction", "probability", "it is"), tuple(table), prose=True)


def _image_blocks(predictions: Predictions, level: int, name: str) -> list[Block]:
    right = [sample for sample in predictions.samples if sample.label == sample.predicted]
    lead = Paragraph("Images at even intervals in the test set that are classified correctly.")
    images = _images(right, predictions.classes, f"test{name}")
    return [Heading("Test images", level), lead, images] if right else []


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
    return make_picture(f"classes{name}", description, partial(_draw_classes, predictions))


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
    axes.set_yticklabels([wrapped(predictions.classes[index], _CLASS_WIDTH) for index in shown])
    axes.tick_params(axis="y", length=0)
    return figure


def _class_table(predictions: Predictions) -> Table:
    accuracy, (totals, correct) = predictions.class_accuracy(), predictions.class_counts()
    labels, mistakes, counts = predictions.confusions()
    rows = []
    for index in _shown_classes(predictions):
        own = labels == index
        name = predictions.classes[mistakes[own][counts[own].argmax()]] if own.any() else ""
        mistake = f"{name} ({counts[own].max()})" if own.any() else "–"
        score = format_percent(None if np.isnan(accuracy[index]) else float(accuracy[index]))
        rows.append((predictions.classes[index], score, f"{totals[index]:,}", f"{correct[index]:,}", mistake))
    header = (_class_label(predictions), "accuracy", "test images", "correct", "most often confused with")
    return Table(header, tuple(rows))


def _matrix(predictions: Predictions, name: str) -> Picture:
    description = "Confusion matrix of the test set: true class by row, prediction by column, in percent of the row"
    return make_picture(f"confusion{name}", description, partial(_draw_matrix, predictions))


def _draw_matrix(predictions: Predictions, theme: Theme) -> Figure:
    counts, size = predictions.confusion_matrix(), len(predictions.classes)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(3.4, 1.4 + 0.36 * size)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # The shares are opacities of one colour, so that the dark form needs no other picture.
    axes.set_facecolor(theme.band)
    cells = np.argwhere(shares > 0).tolist()
    opacities = [shares[row, column] / 100 for row, column in cells]
    squares = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in cells]
    axes.add_collection(PatchCollection(squares, facecolor=theme.palette[0], alpha=opacities, linewidth=0))
    for row, column in np.argwhere(shares >= 0.5).tolist():
        value = shares[row, column]
        ink = contrasting_ink(*(_blend(each.band, each.palette[0], value / 100) for each in (theme, DARK)))
        axes.text(column, row, f"{value:.0f}", ha="center", va="center_baseline", fontsize=7.5, color=ink)
    axes.set(aspect="equal", xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    axes.set(xlabel="prediction (% of the true class)", ylabel="true class", xticks=range(size), yticks=range(size))
    names = [wrapped(each, _CLASS_WIDTH) for each in predictions.classes]
    slope = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
    axes.set_xticklabels(names, **slope)
    axes.set_yticklabels(names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _blend(one: str, other: str, share: float) -> str:
    """The colour of a share of the other colour over the first."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(to_rgb(one), to_rgb(other), strict=True))
    return to_hex((red, green, blue))


def _confusions(predictions: Predictions) -> Table:
    rows = tuple(
        (predictions.classes[label], predictions.classes[predicted], str(count))
        for label, predicted, count in most_confused(predictions, _CONFUSIONS)
    )
    return Table(("true class", "prediction", "test images"), rows, prose=True)


def _images(samples: Sequence[Sample], classes: Sequence[str], name: str) -> ImageGrid:
    return ImageGrid(tuple((_png(sample.image), _caption(sample, classes)) for sample in samples), name)


def _caption(sample: Sample, classes: Sequence[str]) -> str:
    prediction = f"{classes[sample.predicted]}, {100 * sample.probability:.0f} %"
    if sample.label == sample.predicted:
        return f"✓ {prediction} ({sample.id})"
    return f"✗ {prediction}; it is {classes[sample.label]} ({sample.id})"


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()
