"""Images at the door: what is taken, what it becomes, what is refused and how it is told."""

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
    flatten_images,
    pad_rows,
    padded_batches,
    power_of_two,
    to_float,
)

SHAPE = (2, 3, 2)


def images(dtype=np.float32, count=4, shape=SHAPE):
    """Distinct values in [0, 1]; for integers 0, 1, 2, ..."""
    values = np.arange(count * int(np.prod(shape))).reshape(count, *shape)
    return (values if np.issubdtype(dtype, np.integer) else values / values.size).astype(dtype)


class TestImageShape:
    @pytest.mark.parametrize(
        ("given_shape", "expected"),
        [
            ((28, 28), (28, 28, 1)),
            ([5, 7, 3], (5, 7, 3)),
            ((np.int64(4), 4.0), (4, 4, 1)),
        ],
    )
    def test_becomes_three_plain_whole_numbers(self, given_shape, expected):
        shape = check_image_shape(given_shape)
        assert shape == expected
        assert [type(size) for size in shape] == [int, int, int]

    @pytest.mark.parametrize("wrong", [(), (28,), (1, 2, 3, 4), (0, 28), (28, -1), (28, 28, 0), (2.5, 2)])
    def test_anything_else_is_refused(self, wrong):
        with pytest.raises(InputError, match=r"\(height, width\) or \(height, width, channels\)") as caught:
            check_image_shape(wrong)
        assert str(tuple(wrong)) in str(caught.value)


class TestRows:
    def test_uint8_stays_uint8_with_its_values(self):
        rows = flatten_images(images(np.uint8), SHAPE)
        assert rows.dtype == np.uint8
        assert rows.tolist() == [list(range(start, start + 12)) for start in (0, 12, 24, 36)]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
    def test_floats_become_float32(self, dtype):
        given_images = images(dtype)
        rows = flatten_images(given_images, SHAPE)
        assert rows.dtype == np.float32
        expected = [[np.float32(value) for value in image.flat] for image in given_images]
        np.testing.assert_array_equal(rows, np.array(expected, np.float32))

    def test_the_order_is_height_width_channels(self):
        rows = flatten_images(images(np.uint8), SHAPE)
        for n, h, w, c in np.ndindex(4, *SHAPE):
            assert rows[n, (h * 3 + w) * 2 + c] == images(np.uint8)[n, h, w, c]

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_one_channel_may_be_left_out(self, dtype):
        with_channel = images(dtype, shape=(2, 3, 1))
        rows = flatten_images(with_channel[..., 0], (2, 3, 1))
        assert rows.shape == (4, 6)
        np.testing.assert_array_equal(rows, flatten_images(with_channel, (2, 3, 1)))

    def test_the_callers_array_is_not_changed(self):
        given_images = images(np.float64)
        copy = given_images.copy()
        flatten_images(given_images, SHAPE)[:] = 0
        np.testing.assert_array_equal(given_images, copy)

    def test_jax_arrays_and_lists_are_taken(self):
        np.testing.assert_array_equal(flatten_images(jnp.asarray(images()), SHAPE), images().reshape(4, 12))
        np.testing.assert_array_equal(flatten_images(images().tolist(), SHAPE), images().reshape(4, 12))

    def test_the_bounds_themselves_are_in_range(self):
        assert flatten_images(np.array([[[0.0, 1.0, -0.0]]]), (1, 3, 1)).tolist() == [[0.0, 1.0, 0.0]]

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_no_images_make_no_rows(self, dtype):
        rows = flatten_images(np.zeros((0, *SHAPE), dtype), SHAPE)
        assert rows.shape == (0, 12)
        assert rows.dtype == dtype


class TestRefusedImages:
    @pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16, np.bool_, np.complex64, np.str_, object])
    def test_another_type(self, dtype):
        wrong = np.zeros((4, *SHAPE)).astype(dtype)
        with pytest.raises(InputError) as caught:
            flatten_images(wrong, SHAPE)
        assert str(caught.value) == f"images: uint8, or float in [0, 1], is expected, got {wrong.dtype}"

    @pytest.mark.parametrize("shape", [(), (12,), (4, 12), (2, 3, 2), (4, 2, 3), (1, 4, 2, 3, 2)])
    def test_another_rank(self, shape):
        with pytest.raises(InputError) as caught:
            flatten_images(np.zeros(shape), SHAPE)
        assert str(caught.value) == f"images: shape [n, 2, 3, 2] is expected, got {shape}"

    @pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 2, 3, 1), (4, 2, 3, 3), (4, 2, 4, 2), (4, 0, 3, 2)])
    def test_another_size(self, shape):
        with pytest.raises(InputError) as caught:
            flatten_images(np.zeros(shape, np.uint8), SHAPE)
        assert str(caught.value) == f"images: shape [n, 2, 3, 2] is expected, got {shape}"

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite_names_the_first_bad_image(self, bad):
        wrong = images()
        wrong[2, 1, 2, 1] = wrong[3, 0, 0, 0] = bad
        with pytest.raises(InputError, match=r"images: image 2 holds NaN or infinity"):
            flatten_images(wrong, SHAPE)

    @pytest.mark.parametrize("bad", [-1e-6, 1.00001, 255.0, -3.0])
    def test_out_of_range_names_the_first_bad_image(self, bad):
        wrong = images()
        wrong[1, 1, 2, 1] = wrong[2, 0, 0, 0] = bad
        with pytest.raises(InputError, match=r"images: image 1 has values outside \[0, 1\]: .*uint8"):
            flatten_images(wrong, SHAPE)

    def test_a_double_too_large_for_float32_is_refused(self):
        wrong = images(np.float64)
        wrong[3, 0, 0, 0] = 1e300
        with pytest.raises(InputError, match="image 3 "):
            flatten_images(wrong, SHAPE)

    def test_messages_call_the_images_what_the_caller_does(self):
        with pytest.raises(InputError, match=r"^the mask: "):
            flatten_images(np.zeros((4, 2)), SHAPE, what="the mask")

    @given(image=st.integers(0, 3), pixel=st.integers(0, 11), bad=st.sampled_from([np.nan, np.inf, -0.5, 1.5]))
    def test_one_bad_pixel_anywhere_is_found(self, image, pixel, bad):
        wrong = images()
        wrong.reshape(4, 12)[image, pixel] = bad
        with pytest.raises(InputError, match=f"image {image} "):
            flatten_images(wrong, SHAPE)


class TestInsideJit:
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
    def test_gives_the_same_rows(self, dtype):
        traced = jax.jit(lambda x: flatten_images(x, SHAPE))(images(dtype))
        outside = flatten_images(images(dtype), SHAPE)
        assert traced.dtype == outside.dtype
        np.testing.assert_array_equal(np.asarray(traced), outside)

    def test_values_are_not_checked(self):
        wrong = images()
        wrong[0, 0, 0, 0], wrong[1, 0, 0, 0] = np.nan, 7
        rows = np.asarray(jax.jit(lambda x: flatten_images(x, SHAPE))(wrong))
        np.testing.assert_array_equal(rows, wrong.reshape(4, 12))

    @pytest.mark.parametrize("wrong", [np.zeros((4, *SHAPE), np.int32), np.zeros((4, 2, 3, 1), np.float32)])
    def test_type_and_shape_are_checked(self, wrong):
        with pytest.raises(InputError, match="is expected, got"):
            jax.jit(lambda x: flatten_images(x, SHAPE))(wrong)


class TestUnit:
    def test_every_byte_is_its_255th(self):
        unit = to_float(jnp.arange(256, dtype=jnp.uint8).reshape(2, 128))
        assert unit.dtype == jnp.float32
        assert unit.shape == (2, 128)
        expected = [np.float32(byte) / np.float32(255) for byte in range(256)]
        np.testing.assert_array_max_ulp(np.asarray(unit).ravel(), np.array(expected, np.float32), maxulp=1)
        assert float(unit.min()) == 0
        assert float(unit.max()) == 1

    def test_floats_stay_as_they_are(self):
        rows = jnp.asarray([[0.0, 0.25, 1.0]])
        np.testing.assert_array_equal(np.asarray(to_float(rows)), np.array([[0.0, 0.25, 1.0]], np.float32))

    def test_under_jit_it_is_the_same(self):
        rows = jnp.arange(256, dtype=jnp.uint8)[None]
        np.testing.assert_array_max_ulp(np.asarray(jax.jit(to_float)(rows)), np.asarray(to_float(rows)), maxulp=1)


class TestPadding:
    @pytest.mark.parametrize(
        ("count", "minimum", "expected"),
        [(0, 4, 4), (1, 4, 4), (4, 4, 4), (5, 4, 8), (8, 4, 8), (9, 4, 16), (0, 1, 1), (1, 1, 1), (3, 1, 4)],
    )
    def test_powers_of_two_by_hand(self, count, minimum, expected):
        assert power_of_two(count, minimum) == expected

    @given(count=st.integers(0, 10**12), exponent=st.integers(0, 20))
    def test_a_power_of_two_is_the_smallest_by_doubling(self, count, exponent):
        expected = 2**exponent
        while expected < count:
            expected *= 2
        assert power_of_two(count, 2**exponent) == expected

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    @pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)])
    def test_zeros_are_appended(self, dtype, shape):
        rows = (np.arange(int(np.prod(shape))) + 1).reshape(shape).astype(dtype)
        padded = pad_rows(rows, 5)
        assert padded.dtype == dtype
        np.testing.assert_array_equal(padded, np.concatenate([rows, np.zeros((2, *shape[1:]), dtype)]))

    def test_rows_that_are_enough_stay(self):
        rows = images(np.uint8).reshape(4, 12)
        np.testing.assert_array_equal(pad_rows(rows, 4), rows)

    def test_no_rows_become_zeros(self):
        np.testing.assert_array_equal(pad_rows(np.zeros((0, 3), np.uint8), 2), np.zeros((2, 3), np.uint8))

    def test_under_jit_it_is_the_same(self):
        rows = images().reshape(4, 12)
        padded = jax.jit(lambda x: pad_rows(x, 8))(rows)
        np.testing.assert_array_equal(np.asarray(padded), pad_rows(rows, 8))
        assert isinstance(padded, jax.Array)


class TestUnpadded:
    @pytest.mark.parametrize("count", [0, 1, 5, 8, 13])
    def test_gives_back_what_was_cut_into_blocks(self, count):
        rows = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
        parts = [jnp.pad(block, ((0, 0), (0, 2))) for _, block in padded_batches(rows, 2, 4)]
        result = concat_unpadded(parts, count, 3)
        assert isinstance(result, jax.Array)
        np.testing.assert_array_equal(result, rows)

    def test_under_jit_it_is_the_same(self):
        rows = jnp.arange(15.0).reshape(5, 3)

        def there_and_back(rows):
            return concat_unpadded([block for _, block in padded_batches(rows, 2, 4)], 5, 2)

        np.testing.assert_array_equal(jax.jit(there_and_back)(rows), rows[:, :2])
