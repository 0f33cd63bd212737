"""Where images come from: files, sources of categories, streams of tasks."""

from lifelong_cvae.data.drawing import centred, ink_of, pen
from lifelong_cvae.data.opening import SourceOptions, open_source
from lifelong_cvae.data.sources import Source, from_arrays, hold_out, scarce, shared
from lifelong_cvae.data.streams import from_experiences, tasks
