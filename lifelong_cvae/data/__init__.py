"""Image files, sources of categories, and streams of tasks."""

from lifelong_cvae.data.arrays import from_arrays
from lifelong_cvae.data.registry import SourceOptions, absolute_spec, open_source
from lifelong_cvae.data.source import Source, hold_out, limit_train_images, split_reading
from lifelong_cvae.data.strokes import center_ink, extract_ink, render_strokes
from lifelong_cvae.data.tasks import from_experiences, make_tasks
