"""CIFAR-10 and CIFAR-100 from archives and folders in their original layouts, made here with few images."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from cifar_files import BATCH, NAMES, TEST, Images, binary_files, python2_pickle, python_files
from data_files import config_of, prepared, quiet, refused, write_archive, write_folder
from tensorflow_datasets.core import hashing

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset, Sizes
from stepwise_jax.data.sources import cifar
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


def assert_is(dataset: Dataset, name: str) -> None:
    assert dataset.class_names == tuple(NAMES[name])
    assert dataset.image_shape == (32, 32, 3)
    for split in ("train", "test"):
        expected, labels = Images(name).split(split)
        examples = datasets.load(dataset, split, 32, quiet)
        rows = [int(example.removeprefix(f"{split}_")) for example in examples.ids]
        assert sorted(rows) == list(range(len(expected)))
        np.testing.assert_array_equal(examples.images, expected[rows])
        np.testing.assert_array_equal(examples.labels, labels[rows])


FORMS = {"binary": binary_files, "python": python_files}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_archives_in_both_layouts(tmp_path, name, form):
    path = write_archive(tmp_path / f"{name}.tar.gz", FORMS[form](name))
    assert_is(prepared(name, path, tmp_path / "data"), name)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_extracted_folders(tmp_path, name, form, inside):
    files = FORMS[form](name)
    path = write_folder(tmp_path / "there", files)
    folder = next(iter(files)).split("/")[0]
    assert_is(prepared(name, path / folder if inside else path, tmp_path / "data"), name)


def test_both_layouts_give_the_same_files_on_disk(tmp_path):
    hashes = []
    for form, files in FORMS.items():
        dataset = prepared("cifar10", write_folder(tmp_path / form, files("cifar10")), tmp_path / f"data_{form}")
        hashes.append(dataset.builder.info.metadata["content_sha256"])
        assert hashes[-1]["train"] != hashes[-1]["test"]
    assert hashes[0] == hashes[1]


def test_pickles_of_python_3_are_read_too(tmp_path):
    files = python_files("cifar100", lambda value: pickle.dumps(value, 2))
    assert_is(prepared("cifar100", write_folder(tmp_path / "there", files), tmp_path / "data"), "cifar100")


def test_pickled_arrays_may_lie_column_by_column(tmp_path):
    def by_columns(value):
        return {key: np.asfortranarray(each) if isinstance(each, np.ndarray) else each for key, each in value.items()}

    files = python_files("cifar100", lambda value: python2_pickle(by_columns(value)))
    assert_is(prepared("cifar100", write_folder(tmp_path / "there", files), tmp_path / "data"), "cifar100")


@pytest.mark.parametrize("name", NAMES)
def test_order_is_the_one_of_tfds(tmp_path, name):
    dataset = prepared(name, write_archive(tmp_path / "a.tar.gz", binary_files(name)), tmp_path / "data")
    for split in ("train", "test"):
        # TFDS's own builder of CIFAR keys its examples by their number, and hashes the key with the split's name.
        count = dataset.builder.info.splits[split].num_examples
        order = sorted(range(count), key=hashing.Hasher(split).hash_key)
        _, ids = datasets.labels_and_ids(dataset, split)
        assert list(ids) == [f"{split}_{row:05d}" for row in order]


def test_prepared_sizes_replace_the_published(tmp_path):
    data = DataConfig(name="cifar100", data_dir=str(tmp_path / "data"))
    assert datasets.sizes(data) == Sizes(50_000, 10_000, 100)
    prepared("cifar100", write_archive(tmp_path / "a.tar.gz", binary_files("cifar100")), tmp_path / "data")
    assert datasets.sizes(data) == Sizes(BATCH, TEST, 100)


def test_what_prepare_says(tmp_path, capsys, caplog):
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", binary_files("cifar10"))
    words = ["prepare", "cifar10", "--from", str(path), "--data-dir", str(tmp_path / "data")]
    assert launch.main(words) == 0
    assert capsys.readouterr().out == "cifar10 1.0.0: 30 training and 8 test images, 10 classes\n"
    warned = "cifar10: not the published numbers, but 30 training images instead of 50,000, 8 test images instead of "
    labels = set(Images("cifar10").test[1].tolist())
    absent = [name for label, name in enumerate(NAMES["cifar10"]) if label not in labels]
    assert [record.getMessage() for record in caplog.records] == [
        f"cifar10: no test images of {len(absent)} of 10 classes: {', '.join(absent[:5])} and {len(absent) - 5} more",
        warned + "10,000",
    ]


def test_prepared_once(tmp_path, caplog):
    path = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10"))
    prepared("cifar10", path, tmp_path / "data")
    caplog.clear()
    path.write_bytes(b"another")
    prepared("cifar10", path, tmp_path / "data")
    assert "is prepared already; remove '" in caplog.records[0].getMessage()


def test_training_neither_fetches_nor_reads_what_is_given(tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10"))
    data = config_of("cifar10", path, tmp_path / "data")
    with pytest.raises(
        InputError, match=r"data.root is .*`python launch.py prepare cifar10 --from .*a.tar.gz` prepares"
    ):
        datasets.prepare(data, quiet)
    with pytest.raises(InputError, match=r"'cifar10'.*prepare it with `python launch.py prepare cifar10`"):
        datasets.prepare(DataConfig(name="cifar10", data_dir=str(tmp_path / "data")), quiet)
    assert not (tmp_path / "data").exists()


def test_another_version_is_named(tmp_path):
    dataset = prepared("cifar10", write_folder(tmp_path / "there", binary_files("cifar10")), tmp_path / "data")
    folder = Path(dataset.builder.data_dir)
    folder.rename(folder.with_name("0.9.0"))
    with pytest.raises(InputError, match=r"version 1.0.0 is not prepared.*only as 0.9.0 by another version"):
        datasets.open_dataset(DataConfig(name="cifar10", data_dir=str(tmp_path / "data")))


def test_stock_data_set_of_that_name_is_taken_where_ours_is_not_there(tmp_path):
    dataset = prepared("cifar10", write_folder(tmp_path / "there", binary_files("cifar10")), tmp_path / "data")
    ours = Path(dataset.builder.data_dir)
    theirs = tmp_path / "data/cifar10/3.0.2"
    theirs.parent.mkdir()
    ours.rename(theirs)
    data = DataConfig(name="cifar10", data_dir=str(tmp_path / "data"))
    assert Path(datasets.open_dataset(data).builder.data_dir) == theirs
    datasets.prepare(data, quiet)
    assert datasets.sizes(data) == Sizes(30, 8, 10)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_archive(tmp_path, share):
    path = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused("cifar10", path, tmp_path, r"a.tar.gz' is not a complete tar archive")


def test_checksum_within_the_archive_that_does_not_fit(tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10"))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    refused("cifar10", path, tmp_path, r"a.tar.gz' is not a complete tar archive.*CRC")


def test_no_archive_at_all(tmp_path):
    (tmp_path / "a.tar.gz").write_text("not an archive")
    refused("cifar10", tmp_path / "a.tar.gz", tmp_path, r"a.tar.gz' is not a complete tar archive")


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_the_other_cifar(tmp_path, form):
    write = write_archive if form == "archive" else write_folder
    path = write(tmp_path / "there", binary_files("cifar100"))
    refused("cifar10", path, tmp_path, r"is not cifar10: it must hold cifar-10-batches-bin/ or cifar-10-batches-py/")


def test_nothing_there(tmp_path):
    refused("cifar10", tmp_path / "nowhere", tmp_path, r"--from '.*nowhere': there is no such file or folder; give")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("write", [write_archive, write_folder])
def test_missing_file_is_named(tmp_path, write, form):
    files = FORMS[form]("cifar10")
    lost = next(file for file in files if "data_batch_3" in file)
    del files[lost]
    refused("cifar10", write(tmp_path / "there", files), tmp_path, rf"lacks {lost}: the copy of cifar10 is incomplete")


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(binary_files("cifar10")["cifar-10-batches-bin/test_batch.bin"])
    files = binary_files("cifar10")
    del files["cifar-10-batches-bin/test_batch.bin"]
    path = write_archive(tmp_path / "a.tar", files)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
    refused("cifar10", path, tmp_path, "lacks cifar-10-batches-bin/test_batch.bin")


@pytest.mark.parametrize("name", ["../outside", "/tmp/stepwise-outside", "a/../../outside"])
def test_names_that_lead_out_of_an_archive(tmp_path, name):
    path = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10") | {name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    refused("cifar10", path, tmp_path, "a name that points outside it")
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/tmp/stepwise-outside")


def test_absurdly_large_member(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar.archive, "_MAX_FILE_BYTES", 1000)
    path = write_archive(tmp_path / "a.tar.gz", binary_files("cifar10"))
    refused("cifar10", path, tmp_path, r"holds 'cifar-10-batches-bin/data_batch_1.bin' of 18,438 bytes")


def test_truncated_batch(tmp_path):
    files = binary_files("cifar10")
    files["cifar-10-batches-bin/data_batch_2.bin"] = files["cifar-10-batches-bin/data_batch_2.bin"][:-1]
    message = r"data_batch_2.bin is damaged: 18,437 bytes are not a whole number of records of 3,073 bytes"
    refused("cifar10", write_folder(tmp_path / "there", files), tmp_path, message)


def test_labels_out_of_range(tmp_path):
    files = binary_files("cifar10")
    batch = bytearray(files["cifar-10-batches-bin/data_batch_1.bin"])
    batch[2 * 3073] = 10
    files["cifar-10-batches-bin/data_batch_1.bin"] = bytes(batch)
    message = r"the label of 'train_00002' is 10: it must lie in 0 to 9"
    refused("cifar10", write_folder(tmp_path / "there", files), tmp_path, message)


class Evil:
    """Calls a function of the system's when it is unpickled."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, "touch evil"), r"(posix|nt)\.system"),
        ((eval, "open('evil', 'w')"), r"(__builtin__|builtins)\.eval"),
        ((np.fromfile, "/etc/hostname"), r"numpy\.fromfile"),
        ((getattr, "x", "upper"), r"(__builtin__|builtins)\.getattr"),
    ],
)
def test_pickles_may_name_nothing_harmful(tmp_path, monkeypatch, call, named):
    monkeypatch.chdir(tmp_path)
    files = python_files("cifar10")
    files["cifar-10-batches-py/data_batch_4"] = pickle.dumps({"data": Evil(*call), "labels": []}, 2)
    message = rf"data_batch_4 is damaged: it names {named}, which no CIFAR file does"
    refused("cifar10", write_folder(tmp_path / "there", files), tmp_path, message)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        python2_pickle([1, 2]),
        python2_pickle({"labels": [1]}),
        python2_pickle({"labels": [1], "data": "text"}),
        python2_pickle({"labels": [1, 2], "data": np.zeros((1, 3072), np.uint8)}),
        python2_pickle({"labels": ["a"], "data": np.zeros((1, 3072), np.uint8)}),
        python2_pickle({"labels": [1], "data": np.zeros((1, 3072), np.float32)}),
        # Remembers nothing as its 2^30th object: room for all before it would be 8 GB.
        b"\x80\x02Nr\xff\xff\xff\x3f0}.",
    ],
)
def test_damaged_pickles(tmp_path, content):
    files = python_files("cifar10") | {"cifar-10-batches-py/test_batch": content}
    refused("cifar10", write_folder(tmp_path / "there", files), tmp_path, r"cifar-10-batches-py/test_batch is damaged")


def test_truncated_pickle(tmp_path):
    files = python_files("cifar10")
    files["cifar-10-batches-py/test_batch"] = files["cifar-10-batches-py/test_batch"][:-2000]
    refused("cifar10", write_folder(tmp_path / "there", files), tmp_path, r"cifar-10-batches-py/test_batch is damaged")
