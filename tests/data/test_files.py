import math
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong_cvae.data.files import read_idx, read_npz
from lifelong_cvae.data.pictures import natural_order
from lifelong_cvae.errors import InputError
from tests.data.file_contents import idx_bytes, write_file, write_npz
from tests.fuzz import fuzz

PIXELS = list(range(24))  # two images of 3 x 4
# All examples use one folder: each example overwrites its files.
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["images", "images.gz"])
def idx_name(request):
    """Name of a plain and of a gzipped IDX file."""
    return request.param


def test_read_idx_returns_values_in_shape(tmp_path, idx_name):
    array = read_idx(write_file(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)))
    assert array.dtype == np.uint8
    assert array.tolist() == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]],
    ]


def test_read_idx_returns_empty_array_for_size_zero(tmp_path, idx_name):
    assert read_idx(write_file(tmp_path, idx_name, idx_bytes([], 0, 3, 4))).shape == (0, 3, 4)


@same_folder
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), data=st.data())
def test_read_idx_restores_any_array(tmp_path, sizes, data):
    total = math.prod(sizes)
    values = data.draw(st.binary(min_size=total, max_size=total))
    name = data.draw(st.sampled_from(["any", "any.gz"]))
    array = read_idx(write_file(tmp_path, name, idx_bytes(values, *sizes)))
    assert array.shape == tuple(sizes)
    assert array.tobytes() == values


def test_read_idx_names_missing_file(tmp_path, idx_name):
    with pytest.raises(InputError, match=f"{idx_name}: no such file, expected an IDX file"):
        read_idx(tmp_path / idx_name)


def test_read_idx_refuses_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_idx(tmp_path)


def test_read_idx_refuses_empty_file(tmp_path, idx_name):
    with pytest.raises(InputError, match=f"{idx_name}: expected an IDX file .*, got an empty file"):
        read_idx(write_file(tmp_path, idx_name, b""))


def test_read_idx_refuses_empty_gzip_file(tmp_path):
    (tmp_path / "images.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"images\.gz"):
        read_idx(tmp_path / "images.gz")


@pytest.mark.parametrize(
    "magic",
    [b"\1\0\x08\x03", b"\0\1\x08\x03", b"\0\0\x0d\x03", b"\0\0\x08\x00", b"\0\0\x08\x05", b"\x89PNG", b"\0\0\x08"],
)
def test_read_idx_shows_wrong_magic_number(tmp_path, idx_name, magic):
    with pytest.raises(InputError, match=f"expected an IDX file of uint8 .*, got {magic.hex(' ')}$"):
        read_idx(write_file(tmp_path, idx_name, magic + idx_bytes(PIXELS, 2, 3, 4)[4:] * (len(magic) == 4)))


@pytest.mark.parametrize("kept", range(16, 40))
def test_read_idx_refuses_data_cut_short(tmp_path, idx_name, kept):
    path = write_file(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)[:kept])
    with pytest.raises(InputError, match=rf"expected 24 bytes of data for the shape \(2, 3, 4\).* got {kept - 16}$"):
        read_idx(path)


def test_read_idx_refuses_impossible_sizes(tmp_path, idx_name):
    with pytest.raises(InputError, match=f"{idx_name}: "):
        read_idx(write_file(tmp_path, idx_name, idx_bytes([], 0, 2**32 - 1, 2**32 - 1, 2**32 - 1)))


@pytest.mark.parametrize("kept", range(4, 16))
def test_read_idx_refuses_header_cut_short(tmp_path, idx_name, kept):
    with pytest.raises(InputError, match=f"{idx_name}: "):
        read_idx(write_file(tmp_path, idx_name, idx_bytes(PIXELS, 2, 3, 4)[:kept]))


def test_read_idx_refuses_additional_byte(tmp_path, idx_name):
    with pytest.raises(InputError, match=r"expected 24 bytes of data .*, got more than 24"):
        read_idx(write_file(tmp_path, idx_name, idx_bytes([*PIXELS, 0], 2, 3, 4)))


def test_read_idx_refuses_gzip_data_cut_short(tmp_path):
    content = write_file(tmp_path, "images.gz", idx_bytes(PIXELS, 2, 3, 4)).read_bytes()
    for kept in range(len(content)):
        (tmp_path / "images.gz").write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"images\.gz: "):
            read_idx(tmp_path / "images.gz")


def test_read_idx_refuses_flipped_bits_of_gzip_data(tmp_path):
    expected = np.array(PIXELS).reshape(2, 3, 4)
    content = write_file(tmp_path, "images.gz", idx_bytes(PIXELS, 2, 3, 4)).read_bytes()
    refused = 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "images.gz").write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_idx(tmp_path / "images.gz"), expected)
        except InputError:
            refused += 1
    # Time, system and flags in the header (ten bytes at most) do not affect the data.
    assert refused >= 8 * (len(content) - 10)


def test_read_idx_refuses_plain_data_named_gz(tmp_path):
    (tmp_path / "images.gz").write_bytes(idx_bytes(PIXELS, 2, 3, 4))
    with pytest.raises(InputError, match="expected complete gzip data, got damaged gzip data"):
        read_idx(tmp_path / "images.gz")


@pytest.mark.parametrize(
    "sizes",
    [(64, 1024, 256, 256), (1 << 16, 1 << 10, 1 << 10, 1 << 10), (2**32 - 1,) * 4],
    ids=["4 GB", "64 TB", "beyond the address space"],
)
def test_read_idx_allocates_nothing_for_sizes_beyond_file(tmp_path, idx_name, sizes):
    path = write_file(tmp_path, idx_name, idx_bytes([], *sizes))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"expected {math.prod(sizes)} bytes of data .*, got 0"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_read_npz_returns_arrays_in_order_of_keys(tmp_path):
    path = write_npz(tmp_path / "a.npz", first=np.arange(3), second=np.array(["ä", "b"]), third=np.eye(2))
    third, second = read_npz(path, ("third", "second"))
    assert third.tolist() == [[1, 0], [0, 1]]
    assert second.tolist() == ["ä", "b"]


def test_read_npz_reads_compressed_file(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.arange(6, dtype=np.uint8))
    (images,) = read_npz(tmp_path / "a.npz", ("images",))
    assert images.dtype == np.uint8
    assert images.tolist() == [0, 1, 2, 3, 4, 5]


def test_read_npz_names_missing_file_and_keys(tmp_path):
    with pytest.raises(InputError, match=r"a\.npz: no such file, expected .* first, second"):
        read_npz(tmp_path / "a.npz", ("first", "second"))


def test_read_npz_names_missing_and_existing_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", pictures=np.zeros(1), other=np.zeros(1))
    with pytest.raises(InputError, match=r"missing arrays: expected images, labels, got pictures, other"):
        read_npz(path, ("images", "labels", "other"))


def test_read_npz_does_not_unpickle(tmp_path):
    touched = tmp_path / "touched"

    class Bomb:
        def __reduce__(self):
            return (touched.write_text, ("unpickled",))

    bomb = np.empty(1, object)
    bomb[0] = Bomb()
    path = write_npz(tmp_path / "a.npz", images=bomb)
    with pytest.raises(InputError, match=r"expected plain arrays, got pickled objects"):
        read_npz(path, ("images",))
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\3\4", bytes(100)])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_read_npz_refuses_other_content(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: not a readable npz file: expected plain arrays, got") as error:
        read_npz(tmp_path / "a.npz", ("images",))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_read_npz_refuses_npy_file(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"a\.npz: expected an npz file, got an npy file"):
        read_npz(tmp_path / "a.npz", ("images",))


def test_read_npz_refuses_zip_file_without_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("images", b"hello")
    with pytest.raises(InputError, match=r"a\.npz: "):
        read_npz(tmp_path / "a.npz", ("images",))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_read_npz_refuses_file_cut_short(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=np.arange(64, dtype=np.uint8))
    content = path.read_bytes()
    for kept in range(0, len(content), 3):
        path.write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"a\.npz: "):
            read_npz(path, ("images",))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_npz_refuses_flipped_bits_of_data(tmp_path, save):
    pixels = np.random.default_rng(0).integers(0, 256, 400).astype(np.uint8)
    save(tmp_path / "a.npz", images=pixels)
    content = (tmp_path / "a.npz").read_bytes()
    start = content.index(pixels[100:110].tobytes()) if save is np.savez else len(content) // 2
    for byte in range(start, start + 20):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << byte % 8
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable npz file"):
            read_npz(tmp_path / "a.npz", ("images",))


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown compression"])
def test_read_npz_refuses_unsupported_zip_file(tmp_path, offset, value):
    path = write_npz(tmp_path / "a.npz", images=np.zeros(3))
    damaged = bytearray(path.read_bytes())
    central, local = damaged.index(b"PK\1\2"), damaged.index(b"PK\3\4")
    damaged[central + offset] = damaged[local + offset - 2] = value
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="not a readable npz file"):
        read_npz(path, ("images",))


def test_natural_order_equals_hand_sorted_names(tmp_path):
    names = ["1.png", "2a.png", "2b.png", "10.png", "010b.png", "a1.png", "a9b2.png", "a9b10.png"]
    shuffled = sorted(names, key=lambda name: name[::-1])
    assert shuffled != names
    assert [p.name for p in sorted((tmp_path / n for n in shuffled), key=natural_order)] == names


@given(st.lists(st.integers(0, 10**20), unique=True))
def test_natural_order_sorts_numbers(numbers):
    paths = sorted((Path(f"image {number}.png") for number in numbers), key=natural_order)
    assert [path.name for path in paths] == [f"image {number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)))
def test_natural_order_sorts_any_names(names):
    assert len(sorted(map(Path, names), key=natural_order)) == len(names)


def test_fuzz_finds_no_faults():
    outcomes, faults = fuzz(700, seed=1)
    assert not faults
    assert outcomes["refused"] > 350
