"""Prepares MNIST and its relatives for TensorFlow Datasets without TensorFlow.

The stock builders unpack gzip files, open files and encode PNG by TensorFlow. What stands here in their
place writes the same records under the same name and version, which `tfds.data_source` reads.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lifelong_cvae.data.files import read_idx
from lifelong_cvae.errors import InputError

PREPARED_DATASETS = ("mnist", "fashion_mnist", "kmnist", "emnist")
# Split to its two files, images and labels.
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
EMNIST_FILE = "gzip.zip"
# Seconds in which a server has to answer.
TIMEOUT_SECONDS = 2.0


def prepare(spec: str, builder: Any, manual_dir: Path | None) -> None:
    """Prepares a data set in the folder of its builder, from files that lie there or that are downloaded.

    Args:
        spec: what messages call it.
        builder: of TensorFlow Datasets.
        manual_dir: folder that holds the original files, or holds them in a folder of the data set's name;
            default: they are downloaded, if the server answers within `PATIENCE`.

    Raises:
        InputError: it is not one of `FAMILY`; files are missing, or other ones than were published; or there
            is no answer. The line says what to do.
    """
    import tensorflow_datasets as tfds

    folder = str(builder.data_dir_root)
    if builder.name not in PREPARED_DATASETS:
        arguments = f"{spec.partition(':')[2]!r}, data_dir={folder!r}"
        raise InputError(
            f"{spec} is not prepared in {folder}: where TensorFlow is installed, "
            f"tensorflow_datasets.data_source({arguments}, builder_kwargs={{'file_format': 'array_record'}}) "
            f"prepares it; without TensorFlow {', '.join(PREPARED_DATASETS)} are prepared"
        )
    needed = [EMNIST_FILE] if builder.name == "emnist" else [name for pair in MNIST_FILES.values() for name in pair]
    found = _find_files(spec, builder.name, needed, manual_dir)
    if found is None and not server_responds(builder.URL if builder.name == "emnist" else builder.URL + needed[0]):
        raise InputError(
            f"{spec} is not prepared in {folder}, and {urllib.parse.urlsplit(builder.URL).hostname} does not "
            f"answer: put {', '.join(needed)} of {builder.name} into a folder, and name it as tfds_manual_dir"
        )
    # Without an extract_dir of their own, sets whose files are called the same would share what is unpacked.
    config = tfds.download.DownloadConfig(
        manual_dir=found,
        extract_dir=Path(folder, "downloads", "extracted", builder.name),
        try_download_gcs=False,
    )
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    try:
        with _quietly():
            _without_tensorflow(builder).download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        raise InputError(
            f"{found or folder}: not the files of {builder.name} as published (their SHA-256 differs); "
            f"{', '.join(needed)} of {builder.name} are expected"
        ) from error
    except tfds.download.DownloadError as error:
        raise InputError(f"{spec}: {error}; {', '.join(needed)} are expected in tfds_manual_dir") from error


def _find_files(spec: str, name: str, needed: list[str], manual_dir: Path | None) -> Path | None:
    """The folder that holds all the files that are needed; None where none is named."""
    if manual_dir is None:
        return None
    for folder in (manual_dir / name, manual_dir):
        if all((folder / file).is_file() for file in needed):
            return folder
    missing = [file for file in needed if not (manual_dir / file).is_file()]
    raise InputError(f"{spec} is not prepared, and {manual_dir} lacks {', '.join(missing)} of {name}")


def server_responds(url: str) -> bool:
    """Whether a server answers within `PATIENCE`, looking up its name included."""
    answered = threading.Event()

    def ask() -> None:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS),
        ):
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(TIMEOUT_SECONDS)
    return answered.is_set()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Nothing on stdout; bars on a terminal alone."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _without_tensorflow(builder: Any) -> Any:
    """A builder that prepares the same records in the same place as a stock one of `FAMILY`."""
    import tensorflow_datasets as tfds

    stock = type(builder)
    with tfds.core.registered.skip_registration():

        class WithoutTensorFlow(stock):
            name = stock.name

            def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
                if self.name == "emnist":
                    return _emnist(dl_manager.download(self.URL), self.builder_config.name)
                paths = dl_manager.download(
                    {split: [self.URL + name for name in names] for split, names in MNIST_FILES.items()}
                )
                return {split: self._generate_examples(*pair) for split, pair in paths.items()}

            def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, dict[str, Any]]]:
                return _examples(Path(images), Path(labels))

    return WithoutTensorFlow(data_dir=builder.data_dir_root, config=builder.builder_config, file_format="array_record")


def _emnist(archive: Any, config: str) -> dict[str, Any]:
    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as files:
            stems = (f"gzip/emnist-{config}-{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
            yield from _examples(*(Path(files.extract(stem, folder)) for stem in stems))

    return {split: examples(split) for split in ("train", "test")}


def _examples(images: Path, labels: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, (image, label) in enumerate(zip(read_idx(images), read_idx(labels), strict=True)):
        yield index, {"image": Image.fromarray(image), "label": int(label)}
