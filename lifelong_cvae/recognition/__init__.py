"""Recognition: from a state and images to categories."""

from lifelong_cvae.recognition.open_set import familiarity, unknown
from lifelong_cvae.recognition.recognizer import (
    Recognizer,
    decide,
    evidence,
    log_likelihoods,
    log_posteriors,
    make_recognizer,
    recognize,
    recognize_with_evidence,
)
