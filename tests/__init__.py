"""Tests. Every process of theirs computes with one thread unless a test says otherwise: the workers of a run share the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which reads it once
