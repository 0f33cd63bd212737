import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong_cvae.errors import InputError
from lifelong_cvae.images import (
    check_image_shape,
    concat_unpadded,
    find_max_value,
    flatten_images,
    pad_rows,
    padded_batches,
    pixel_values,
    power_of_two,
    to_float,
    to_uint8,
    unify_types,
)

SHAPE = (2, 3, 2)


def distinct_images(dtype=np.float32, count=4, shape=SHAPE):
    """Images of distinct pixels in [0, 1); of integers 0, 1, 2, ... for an integer type."""
    values = np.arange(count * int(np.prod(shape))).reshape(count, *shape)
    return (values if np.issubdtype(dtype, np.integer) else values / values.size).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "expected"), [((28, 28), (28, 28, 1)), ([5, 7, 3], (5, 7, 3)), ((np.int64(4), 4.0), (4, 4, 1))]
)
def test_check_image_shape_returns_three_ints(shape, expected):
    checked = check_image_shape(shape)
    assert checked == expected
    assert [type(size) for size in checked] == [int, int, int]


@pytest.mark.parametrize("shape", [(), (0,), (1, 2, 3, 4), (0, 28), (28, -1), (28, 28, 0), (2.5, 2)])
def test_check_image_shape_refuses_other_shapes(shape):
    with pytest.raises(InputError) as error:
        check_image_shape(shape)
    expected = "expected positive (height, width) or (height, width, channels), or (d,) of vectors"
    assert str(error.value) == f"image shape: {expected}, got {shape}"


def test_flatten_images_keeps_uint8():
    rows = flatten_images(distinct_images(np.uint8), SHAPE)
    assert rows.dtype == np.uint8
    assert rows.tolist() == [list(range(start, start + 12)) for start in (0, 12, 24, 36)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_flatten_images_converts_to_float32(dtype):
    images = distinct_images(dtype)
    rows = flatten_images(images, SHAPE)
    assert rows.dtype == np.float32
    expected = [[np.float32(value) for value in image.flat] for image in images]
    np.testing.assert_array_equal(rows, np.array(expected, np.float32))


def test_flatten_images_orders_height_width_channels():
    rows = flatten_images(distinct_images(np.uint8), SHAPE)
    for n, h, w, c in np.ndindex(4, *SHAPE):
        assert rows[n, (h * 3 + w) * 2 + c] == distinct_images(np.uint8)[n, h, w, c]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flatten_images_accepts_missing_channel_axis(dtype):
    with_channel = distinct_images(dtype, shape=(2, 3, 1))
    rows = flatten_images(with_channel[..., 0], (2, 3, 1))
    assert rows.shape == (4, 6)
    np.testing.assert_array_equal(rows, flatten_images(with_channel, (2, 3, 1)))


def test_flatten_images_does_not_modify_input():
    images = distinct_images(np.float64)
    copy = images.copy()
    flatten_images(images, SHAPE)[:] = 0
    np.testing.assert_array_equal(images, copy)


def test_flatten_images_accepts_jax_arrays_and_lists():
    expected = distinct_images().reshape(4, 12)
    np.testing.assert_array_equal(flatten_images(jnp.asarray(distinct_images()), SHAPE), expected)
    np.testing.assert_array_equal(flatten_images(distinct_images().tolist(), SHAPE), expected)


def test_flatten_images_accepts_bounds_of_range():
    assert flatten_images(np.array([[[0.0, 1.0, -0.0]]]), (1, 3, 1)).tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flatten_images_returns_no_rows_for_no_images(dtype):
    rows = flatten_images(np.zeros((0, *SHAPE), dtype), SHAPE)
    assert rows.shape == (0, 12)
    assert rows.dtype == dtype


@pytest.mark.parametrize("dtype", [np.complex64, np.str_, object])
def test_flatten_images_refuses_other_types(dtype):
    images = np.zeros((4, *SHAPE)).astype(dtype)
    with pytest.raises(InputError) as error:
        flatten_images(images, SHAPE)
    assert str(error.value) == f"images: expected uint8 or float in [0, 1], got {images.dtype}"


@pytest.mark.parametrize("shape", [(), (12,), (4, 12), (2, 3, 2), (4, 2, 3), (1, 4, 2, 3, 2)])
def test_flatten_images_refuses_other_ranks(shape):
    with pytest.raises(InputError) as error:
        flatten_images(np.zeros(shape), SHAPE)
    assert str(error.value) == f"images: expected shape [n, 2, 3, 2], got {shape}"


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 2, 3, 1), (4, 2, 3, 3), (4, 2, 4, 2), (4, 0, 3, 2)])
def test_flatten_images_refuses_other_sizes(shape):
    with pytest.raises(InputError) as error:
        flatten_images(np.zeros(shape, np.uint8), SHAPE)
    assert str(error.value) == f"images: expected shape [n, 2, 3, 2], got {shape}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_flatten_images_names_first_image_that_is_not_finite(value):
    images = distinct_images()
    images[2, 1, 2, 1] = images[3, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"^images: expected finite values, got NaN or infinity in image 2$"):
        flatten_images(images, SHAPE)


@pytest.mark.parametrize("value", [-1e-6, 1.00001, 255.0, -3.0])
def test_flatten_images_names_first_image_out_of_range(value):
    images = distinct_images()
    images[1, 1, 2, 1] = images[2, 0, 0, 0] = value
    with pytest.raises(InputError) as error:
        flatten_images(images, SHAPE)
    assert str(error.value) == "images: expected uint8 or float in [0, 1], got float outside [0, 1] in image 1"


def test_flatten_images_refuses_double_beyond_float32():
    images = distinct_images(np.float64)
    images[3, 0, 0, 0] = 1e300
    with pytest.raises(InputError, match=r"image 3$"):
        flatten_images(images, SHAPE)


def test_flatten_images_names_images_as_requested():
    with pytest.raises(InputError, match=r"^the mask: "):
        flatten_images(np.zeros((4, 2)), SHAPE, what="the mask")


@given(image=st.integers(0, 3), pixel=st.integers(0, 11), value=st.sampled_from([np.nan, np.inf, -0.5, 1.5]))
def test_flatten_images_finds_any_bad_pixel(image, pixel, value):
    images = distinct_images()
    images.reshape(4, 12)[image, pixel] = value
    with pytest.raises(InputError, match=f"image {image}$"):
        flatten_images(images, SHAPE)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_flatten_images_returns_same_rows_under_jit(dtype):
    traced = jax.jit(lambda x: flatten_images(x, SHAPE))(distinct_images(dtype))
    rows = flatten_images(distinct_images(dtype), SHAPE)
    assert traced.dtype == rows.dtype
    np.testing.assert_array_equal(np.asarray(traced), rows)


def test_flatten_images_does_not_check_values_under_jit():
    images = distinct_images()
    images[0, 0, 0, 0], images[1, 0, 0, 0] = np.nan, 7
    rows = np.asarray(jax.jit(lambda x: flatten_images(x, SHAPE))(images))
    np.testing.assert_array_equal(rows, images.reshape(4, 12))


@pytest.mark.parametrize("images", [np.zeros((4, *SHAPE), np.complex64), np.zeros((4, 2, 3, 1), np.float32)])
def test_flatten_images_checks_type_and_shape_under_jit(images):
    with pytest.raises(InputError, match=r"expected .*, got"):
        jax.jit(lambda x: flatten_images(x, SHAPE))(images)


def test_to_float_divides_bytes_by_255():
    pixels = to_float(jnp.arange(256, dtype=jnp.uint8).reshape(2, 128))
    assert pixels.dtype == jnp.float32
    assert pixels.shape == (2, 128)
    expected = [np.float32(byte) / np.float32(255) for byte in range(256)]
    np.testing.assert_array_max_ulp(np.asarray(pixels).ravel(), np.array(expected, np.float32), maxulp=1)
    assert float(pixels.min()) == 0
    assert float(pixels.max()) == 1


def test_to_float_keeps_floats():
    rows = jnp.asarray([[0.0, 0.25, 1.0]])
    np.testing.assert_array_equal(np.asarray(to_float(rows)), np.array([[0.0, 0.25, 1.0]], np.float32))


def test_to_float_returns_same_values_under_jit():
    rows = jnp.arange(256, dtype=jnp.uint8)[None]
    np.testing.assert_array_max_ulp(np.asarray(jax.jit(to_float)(rows)), np.asarray(to_float(rows)), maxulp=1)


def test_to_uint8_inverts_to_float():
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    restored = to_uint8(to_float(jnp.asarray(pixels)))
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, pixels)


def test_to_uint8_rounds_to_nearest():
    pixels = to_uint8([0.0, 0.499 / 255, 0.501 / 255, 1.499 / 255, 254.501 / 255, 1.0])
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [0, 0, 1, 1, 255, 255]


def test_to_uint8_keeps_uint8():
    pixels = np.arange(256, dtype=np.uint8)
    assert to_uint8(pixels) is pixels


@pytest.mark.parametrize(
    ("count", "minimum", "expected"),
    [(0, 4, 4), (1, 4, 4), (4, 4, 4), (5, 4, 8), (8, 4, 8), (9, 4, 16), (0, 1, 1), (1, 1, 1), (3, 1, 4)],
)
def test_power_of_two_equals_hand_computed_values(count, minimum, expected):
    assert power_of_two(count, minimum) == expected


@given(count=st.integers(0, 10**12), exponent=st.integers(0, 20))
def test_power_of_two_equals_repeated_doubling(count, exponent):
    expected = 2**exponent
    while expected < count:
        expected *= 2
    assert power_of_two(count, 2**exponent) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)])
def test_pad_rows_appends_zeros(dtype, shape):
    rows = (np.arange(int(np.prod(shape))) + 1).reshape(shape).astype(dtype)
    padded = pad_rows(rows, 5)
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded, np.concatenate([rows, np.zeros((2, *shape[1:]), dtype)]))


def test_pad_rows_keeps_rows_of_full_length():
    rows = distinct_images(np.uint8).reshape(4, 12)
    np.testing.assert_array_equal(pad_rows(rows, 4), rows)


def test_pad_rows_pads_no_rows():
    np.testing.assert_array_equal(pad_rows(np.zeros((0, 3), np.uint8), 2), np.zeros((2, 3), np.uint8))


def test_pad_rows_returns_same_rows_under_jit():
    rows = distinct_images().reshape(4, 12)
    padded = jax.jit(lambda x: pad_rows(x, 8))(rows)
    np.testing.assert_array_equal(np.asarray(padded), pad_rows(rows, 8))
    assert isinstance(padded, jax.Array)


@pytest.mark.parametrize("count", [0, 1, 5, 8, 13])
def test_concat_unpadded_inverts_padded_batches(count):
    rows = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    parts = [jnp.pad(batch, ((0, 0), (0, 2))) for _, batch in padded_batches(rows, 2, 4)]
    result = concat_unpadded(parts, count, 3)
    assert isinstance(result, jax.Array)
    np.testing.assert_array_equal(result, rows)


@pytest.mark.parametrize(
    ("count", "size", "batches"),
    [(1, 2, 1), (16, 2, 8), (17, 32, 1), (256, 32, 8), (257, 500, 1), (501, 500, 2), (9000, 500, 18)],
)
def test_padded_batches_have_few_sizes(count, size, batches):
    starts, arrays = zip(*padded_batches(np.ones((count, 1)), 2, 500), strict=True)
    assert starts == tuple(range(0, count, size))
    assert [array.shape for array in arrays] == [(size, 1)] * batches
    assert sum(array.sum() for array in arrays) == count


def test_concat_unpadded_returns_same_rows_under_jit():
    rows = jnp.arange(15.0).reshape(5, 3)

    def split_and_concat(rows):
        return concat_unpadded([batch for _, batch in padded_batches(rows, 2, 4)], 5, 2)

    np.testing.assert_array_equal(jax.jit(split_and_concat)(rows), rows[:, :2])


def pixels_of(*values, dtype):
    """One-pixel images."""
    return np.array(values, dtype).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("values", "dtype", "white"),
    [
        ([0, 1], np.uint8, 1),
        ([0, 2], np.uint8, 16),
        ([0, 17], np.uint8, None),
        ([0, 0], np.uint8, None),
        ([0, 256], np.int32, 1023),
        ([0, 65535], np.uint16, 65535),
        ([0, 0.5], np.float32, None),
        ([0, 16.0], np.float64, 16),
        ([0, 20.5], np.float64, 255),
        ([0, 4095.0], np.float32, 4095),
        ([False, True], bool, 1),
    ],
)
def test_find_max_value_returns_the_smallest_plausible_one(values, dtype, white):
    found = find_max_value(pixel_values(pixels_of(*values, dtype=dtype)))
    assert found == white


@pytest.mark.parametrize(
    ("values", "dtype"), [([-1, 1], np.int8), ([0, 65536], np.int32), ([0, 1.5], np.float32), ([0, 300.5], np.float32)]
)
def test_find_max_value_refuses_what_is_not_certain(values, dtype):
    with pytest.raises(InputError, match=r"images: expected .*; scale them to \[0, 1\], or give max_value"):
        find_max_value(pixel_values(pixels_of(*values, dtype=dtype)))


@given(st.lists(st.integers(0, 70000), min_size=1), st.lists(st.integers(0, 70000), min_size=1))
def test_merge_equals_values_of_all_pixels(first, second):
    merged = pixel_values(pixels_of(*first, dtype=int)).merge(pixel_values(pixels_of(*second, dtype=int)))
    assert merged == pixel_values(pixels_of(*first, *second, dtype=int))


def test_flatten_images_divides_by_the_value_of_white():
    rows = flatten_images(pixels_of(0, 4, 16, dtype=np.uint8), (1, 1, 1), max_value=16)
    assert rows.dtype == np.float32
    assert rows.ravel().tolist() == [0, 0.25, 1]
    assert flatten_images(pixels_of(0, 4.0, 16, dtype=float), (1, 1, 1), max_value=16).ravel().tolist() == [0, 0.25, 1]


def test_flatten_images_takes_floats_up_to_1_as_fractions_of_white():
    assert flatten_images(pixels_of(0, 0.25, dtype=float), (1, 1, 1), max_value=16).ravel().tolist() == [0, 0.25]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, float])
def test_flatten_images_refuses_values_above_white(dtype):
    with pytest.raises(InputError, match=r"images: expected values from 0 to 16, got .* from 0 to 17 in image 1"):
        flatten_images(pixels_of(0, 17, dtype=dtype), (1, 1, 1), max_value=16)


@pytest.mark.parametrize(("values", "white"), [([0, 1], None), ([3, 16], None), ([0, 255], 65535)])
def test_flatten_images_refuses_almost_black_images_on_request(values, white):
    images = pixels_of(*values, dtype=np.uint8)
    flatten_images(images, (1, 1, 1), max_value=white)
    with pytest.raises(InputError, match="which would be almost black; scale them to floats"):
        flatten_images(images, (1, 1, 1), max_value=white, refuse_dark=True)


def test_flatten_images_accepts_channels_first():
    images = distinct_images(np.uint8, shape=(5, 4, 3))
    first = images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(flatten_images(first, (5, 4, 3)), flatten_images(images, (5, 4, 3)))


def test_unify_types_scales_bytes_beside_floats():
    images = {"a": pixels_of(0, 255, dtype=np.uint8), "b": pixels_of(0.5, 1, dtype=np.float32)}
    unified = unify_types(images)
    assert {name: values.ravel().tolist() for name, values in unified.items()} == {"a": [0, 1], "b": [0.5, 1]}
    assert unify_types({"a": images["a"]})["a"].dtype == np.uint8
