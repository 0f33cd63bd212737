"""Prepares MNIST and its relatives for TensorFlow Datasets without TensorFlow.

The stock builders use TensorFlow to unpack gzip files, open files and encode PNG. The builders here write the same
records under the same name and version without it. `tfds.data_source` reads them.
"""

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
# Images and labels of each split.
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
EMNIST_FILE = "gzip.zip"
# Seconds within which a server must respond.
TIMEOUT_SECONDS = 2.0


def prepare(spec: str, builder: Any, manual_dir: Path | None) -> None:
    """Prepares a data set in the folder of its builder, from local or downloaded files.

    Args:
        spec: name of the data set in error messages.
        builder: builder of TensorFlow Datasets.
        manual_dir: folder of the original files, which may be in a subfolder with the name of the data set. None
            downloads them if the server responds within `TIMEOUT_SECONDS`.

    Raises:
        InputError: the data set is not one of `PREPARED_DATASETS`, files are missing or differ from the published
            ones, or the server does not respond. The message states the remedy.
    """
    import tensorflow_datasets as tfds

    folder = str(builder.data_dir_root)
    if builder.name not in PREPARED_DATASETS:
        arguments = f"{spec.partition(':')[2]!r}, data_dir={folder!r}"
        raise InputError(
            f"{spec} is not prepared in {folder}: where TensorFlow is installed, "
            f"tensorflow_datasets.data_source({arguments}, builder_kwargs={{'file_format': 'array_record'}}) "
            f"prepares it; without TensorFlow only {', '.join(PREPARED_DATASETS)} can be prepared"
        )
    needed = [EMNIST_FILE] if builder.name == "emnist" else [name for pair in MNIST_FILES.values() for name in pair]
    files_dir = _find_files(spec, builder.name, needed, manual_dir)
    first_url = builder.URL if builder.name == "emnist" else builder.URL + needed[0]
    if files_dir is None and not server_responds(first_url):
        raise InputError(
            f"{spec} is not prepared in {folder}, and {urllib.parse.urlsplit(builder.URL).hostname} does not "
            f"respond: put {', '.join(needed)} of {builder.name} into a folder, and set tfds_manual_dir to it"
        )
    # Without an extract_dir of their own, data sets with equal file names would share their unpacked files.
    config = tfds.download.DownloadConfig(
        manual_dir=files_dir, extract_dir=Path(folder, "downloads", "extracted", builder.name), try_download_gcs=False
    )
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    try:
        with _quiet():
            _without_tensorflow(builder).download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        raise InputError(
            f"{files_dir or folder}: expected {', '.join(needed)} of {builder.name} as published, "
            "got files with another SHA-256"
        ) from error
    except tfds.download.DownloadError as error:
        raise InputError(f"{spec}: {error}; put {', '.join(needed)} into the folder tfds_manual_dir") from error


def _find_files(spec: str, name: str, needed: list[str], manual_dir: Path | None) -> Path | None:
    """Returns the folder that holds all needed files; None if no folder is given."""
    if manual_dir is None:
        return None
    for folder in (manual_dir / name, manual_dir):
        if all((folder / file).is_file() for file in needed):
            return folder
    missing = [file for file in needed if not (manual_dir / file).is_file()]
    raise InputError(f"{spec} is not prepared, and {manual_dir} lacks {', '.join(missing)} of {name}")


def server_responds(url: str) -> bool:
    """Returns True if a server responds within `TIMEOUT_SECONDS`, including the lookup of its name."""
    responded = threading.Event()

    def request() -> None:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS),
        ):
            responded.set()

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return responded.is_set()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses stdout, and progress bars unless stderr is a terminal."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _without_tensorflow(builder: Any) -> Any:
    """Returns a builder that prepares the same records in the same folder as a stock builder."""
    import tensorflow_datasets as tfds

    stock = type(builder)
    with tfds.core.registered.skip_registration():

        class WithoutTensorFlow(stock):
            name = stock.name

            def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
                if self.name == "emnist":
                    return _emnist_examples(dl_manager.download(self.URL), self.builder_config.name)
                paths = dl_manager.download(
                    {split: [self.URL + name for name in names] for split, names in MNIST_FILES.items()}
                )
                return {split: self._generate_examples(*pair) for split, pair in paths.items()}

            def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, dict[str, Any]]]:
                return _idx_examples(Path(images), Path(labels))

    return WithoutTensorFlow(data_dir=builder.data_dir_root, config=builder.builder_config, file_format="array_record")


def _emnist_examples(archive: Any, config: str) -> dict[str, Any]:
    """Returns the numbered examples of each split of an EMNIST configuration."""

    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as files:
            names = (f"gzip/emnist-{config}-{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
            yield from _idx_examples(*(Path(files.extract(name, folder)) for name in names))

    return {split: examples(split) for split in ("train", "test")}


def _idx_examples(images: Path, labels: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields numbered examples of an IDX file of images and one of labels."""
    for index, (image, label) in enumerate(zip(read_idx(images), read_idx(labels), strict=True)):
        yield index, {"image": Image.fromarray(image), "label": int(label)}
