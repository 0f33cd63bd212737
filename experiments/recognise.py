"""Name of the launcher `recognize` in version 0.1, accepted until 0.3."""

import runpy

from lifelong_cvae import deprecated

if __name__ == "__main__":
    deprecated.warn("experiments.recognise", "experiments.recognize")
    runpy.run_module("experiments.recognize", run_name="__main__", alter_sys=True)
