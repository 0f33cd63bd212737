"""Recognition: from a state and images to categories."""

from lifelong_cvae.recognition.recognizer import (
    Recognizer,
    decide,
    evidence,
    familiarity,
    log_likelihoods,
    log_posteriors,
    make_recognizer,
    recognize,
    unknown,
)
