"""The command `predict`: from files to the probabilities that the run itself recorded."""

import io
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch
from stepwise_jax.cli import tables
from stepwise_jax.inference import image_files, predict
from stepwise_jax.workdir.lock import exclusive_lock
from tests.cli.command_line import fails


def predicted(capsys, folder, *words, status=0):
    """The document of `predict --json`, and the text on stderr."""
    assert launch.main(["predict", str(folder / "run"), *map(str, words), "--json"]) == status
    out, err = capsys.readouterr()
    return json.loads(out), err


def table(rows):
    return [{each["name"]: each["probability"] for each in row["classes"]} for row in rows]


def test_from_files_come_the_probabilities_that_the_run_recorded(folder_run, capsys):
    """End to end: prepared, loaded and scored by training, decoded and classified by `predict`."""
    kept = np.load(folder_run / "run" / "predictions.npz")
    paths = [folder_run / "images" / name for name in kept["ids"].tolist()]
    rows, _ = predicted(capsys, folder_run, *paths)
    assert [row["image"] for row in rows] == list(map(str, paths))
    for row in rows:
        probabilities = [each["probability"] for each in row["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    names = kept["classes"].tolist()
    assert names == ["cat", "dog", "old cow"]
    found = [[row[name] for name in names] for row in table(rows)]
    np.testing.assert_allclose(found, kept["probabilities"], rtol=1e-4, atol=1e-6)
    # A network whose predictions ignore the image would pass too.
    assert np.ptp(kept["probabilities"], axis=0).min() > 0.05


def test_a_run_without_its_data_predicts(folder_run, capsys, tmp_path):
    shutil.copytree(folder_run / "run", tmp_path / "run")
    image = shutil.copy(folder_run / "images" / "test" / "dog" / "01.jpeg", tmp_path / "x.jpeg")
    alone, _ = predicted(capsys, tmp_path, image)
    among, _ = predicted(capsys, folder_run, folder_run / "images" / "test")
    same = next(row for row in among if row["image"].endswith("dog/01.jpeg"))
    assert table(alone)[0] == pytest.approx(table([same])[0], rel=1e-4)


def test_a_folder_a_pattern_and_files_name_the_same_images(folder_run, capsys, monkeypatch):
    monkeypatch.chdir(folder_run / "images")
    whole, _ = predicted(capsys, folder_run, "test/cat")
    names = [f"test/cat/{name}" for name in ("00.jpg", "01.jpeg", "02.png", "03.PNG", "04.jpg", "05.webp")]
    assert [row["image"] for row in whole] == names
    assert predicted(capsys, folder_run, *names)[0] == whole
    assert predicted(capsys, folder_run, "test/c?t/*")[0] == whole
    assert predicted(capsys, folder_run, "t[e]st/cat")[0] == whole


def test_lines_are_plain_in_a_pipe(folder_run, capsys, monkeypatch):
    monkeypatch.chdir(folder_run / "images" / "test")
    assert launch.main(["predict", str(folder_run / "run"), "cat/00.jpg", "old cow/02.png", "--top", "2"]) == 0
    out, err = capsys.readouterr()
    rows, _ = predicted(capsys, folder_run, "cat/00.jpg", "old cow/02.png", "--top", "2")
    expected = [
        f"{row['image']}: " + ", ".join(f"{each['name']} {100 * each['probability']:.2f} %" for each in row["classes"])
        for row in rows
    ]
    assert all(len(row["classes"]) == 2 for row in rows)
    assert out.splitlines() == expected
    assert err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_table():
    rows = [predict.rank_classes("a [red] name.png", np.array([0.25, 0.75]), ["cat", "[b]dog"], 5)]
    tables.print_ranked(rows, stream := Terminal())
    assert "a [red] name.png" in stream.getvalue()
    assert "[b]dog 75.00 %, cat 25.00 %" in stream.getvalue()
    assert "best first" in stream.getvalue()


def test_equal_probabilities_keep_the_order_of_the_classes():
    ranked = predict.rank_classes("x", np.array([0.2, 0.3, 0.2, 0.3]), "abcd", 3)
    assert [each["name"] for each in ranked["classes"]] == ["b", "d", "a"]


def test_unreadable_files_are_named_and_the_rest_is_predicted(folder_run, capsys, tmp_path):
    good = folder_run / "images" / "test" / "cat" / "00.jpg"
    (tmp_path / "half.jpg").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.bmp").write_bytes(b"no image")
    shutil.copy(good, tmp_path / "whole.jpg")
    rows, err = predicted(capsys, folder_run, tmp_path, tmp_path / "none.jpg", status=2)
    assert [row["image"] for row in rows] == [str(tmp_path / "whole.jpg")]
    *warnings, error = [line for line in err.splitlines() if not line.startswith("classifying")]
    assert [line.split(" ")[1].split("/")[-1] for line in warnings] == ["none.jpg", "empty.png", "half.jpg", "text.bmp"]
    assert all(line.startswith("warning: ") for line in warnings)
    assert error == "error: 4 of 5 images could not be classified"


def test_a_batch_without_a_readable_image(folder_run, capsys, tmp_path):
    for number in range(11):
        (tmp_path / f"{number:02d}.jpg").write_bytes(b"")
    shutil.copy(folder_run / "images" / "test" / "cat" / "00.jpg", tmp_path / "99.jpg")
    rows, err = predicted(capsys, folder_run, tmp_path, status=2)
    assert len(rows) == 1
    assert err.count("cannot be read: empty file") == 11


def test_pipes_devices_and_huge_files_are_named_and_never_read(folder_run, capsys, tmp_path):
    paths = [tmp_path / name for name in ("pipe.jpg", "zero.png", "huge.bmp", "x.jpg")]
    os.mkfifo(paths[0])
    paths[1].symlink_to("/dev/zero")
    paths[2].touch()
    os.truncate(paths[2], 600 << 20)
    shutil.copy(folder_run / "images" / "test" / "cat" / "00.jpg", paths[3])
    rows, err = predicted(capsys, folder_run, *paths, status=2)
    assert [row["image"] for row in rows] == [str(paths[3])]
    assert f"warning: {paths[0]} cannot be read: not a regular file" in err
    assert f"warning: {paths[1]} cannot be read: not a regular file" in err
    assert f"warning: {paths[2]} cannot be read: a file of 600.0 MiB, and at most 512 are read" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.jpg"], "none.jpg: there is no such image file"),
        (["none*", "nothing/"], "none*, nothing/: there is no such image file"),
        (["empty"], "empty: there is no such image file, folder with images, or match"),
        (["x.png", "--top", "0"], "--top 0: it must be at least 1"),
    ],
)
def test_no_image_at_all_gets_one_sentence(folder_run, capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (20, 20)).save("x.png")
    assert message in fails(capsys, "predict", str(folder_run / "run"), *words)


def test_what_is_no_trained_run_gets_one_sentence(folder_run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("x.png")
    assert "there is no folder nowhere" in fails(capsys, "predict", "nowhere", "x.png")
    assert not (tmp_path / "nowhere").exists()
    with exclusive_lock(folder_run / "run"):
        assert "is in use" in fails(capsys, "predict", str(folder_run / "run"), "x.png")


def test_folders_are_searched_to_the_bottom_once(tmp_path):
    for name in ("b/z.JPG", "b/a/x.png", "a.webp", "b/notes.txt", ".hidden/y.png", "c/Thumbs.db", "c/[1].bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    found, unmatched = image_files.find_images([str(tmp_path), str(tmp_path / "c" / "[1].bmp"), "no*"])
    expected = ["a.webp", "b/a/x.png", "b/z.JPG", "c/[1].bmp"]
    assert found == [str(tmp_path / name) for name in expected]
    assert unmatched == ["no*"]


def test_a_file_that_is_named_twice_counts_once_and_that_is_said(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.chdir(tmp_path)
    for name in ("folder/a.png", "folder/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("folder/link.png").symlink_to("a.png")
    Path("same").symlink_to("folder")
    words = ["folder", "folder/*", "./folder/b.png", "folder/b.png", "same"]
    assert image_files.find_images(words) == (["folder/a.png", "folder/b.png", "folder/link.png"], [])
    (record,) = caplog.records
    assert record.getMessage().startswith("classified once: 8 files that are named more than once: folder/a.png, fold")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_every_kind_of_image_serves_a_grey_and_a_colour_network(tmp_path, mode):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    grey = Image.fromarray(levels)
    image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    image.save(tmp_path / "x.png")
    read = {channels: image_files.read_image(str(tmp_path / "x.png"), (8, 8, channels)) for channels in (1, 3)}
    expected = np.asarray(grey.convert("1").convert("L")) if mode == "1" else levels
    for channels, pixels in read.items():
        assert isinstance(pixels, np.ndarray)
        assert pixels.shape == (8, 8, channels)
        np.testing.assert_allclose(pixels.astype(int), np.stack([expected] * channels, -1).astype(int), atol=3)


def test_evaluate_takes_where_the_data_lies_now(folder_run, capsys, tmp_path):
    """The images and what is prepared of them have moved; files are known by their contents."""
    shutil.copytree(folder_run / "images", tmp_path / "images")
    shutil.copytree(folder_run / "d", tmp_path / "prepared")
    shutil.copytree(folder_run / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["experiment"]["data"] |= {"root": "/no/such/images", "data_dir": "/no/such/place"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    run = str(tmp_path / "run")
    assert "/no/such/images" in fails(capsys, "evaluate", run)
    where = ["--data.root", str(tmp_path / "images"), "--data.data_dir", str(tmp_path / "prepared")]
    assert launch.main(["evaluate", run, *where, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["top1"] == json.loads((tmp_path / "run" / "summary.json").read_text())["top1"]
    assert "/nowhere" in fails(capsys, "evaluate", run, "--data.root", "/nowhere")


def test_a_folder_is_searched_for_what_prepare_takes_and_the_rest_is_named(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    for name in ("a.gif", "b.tiff", "c.jfif", "notes.txt", "d/photo.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, unmatched = image_files.find_images([str(tmp_path)])
    assert [Path(path).name for path in found] == ["a.gif", "b.tiff", "c.jfif"]
    assert unmatched == []
    names = f"{tmp_path / 'd/photo.heic'}, {tmp_path / 'notes.txt'}"
    (record,) = caplog.records
    assert record.getMessage() == f"left out 2 files not named like an image that can be read: {names}"
