"""Milliseconds of a network on a device, with the conditions they hold under.

    from latency import measure

Knows nothing of LPS-Net. Importing it imports no runtime.
"""

# `measure` is also the name of a module here, so the function is bound at once instead of on first use.
from latency.measure import measure
from latency.measurement import Conditions, Environment, Measurement, TimingPlan
from latency.protocols import BackendError, MeasurementFailed
from latency.store import Store, StoreError, default_store_path

__all__ = [
    "BackendError",
    "Conditions",
    "Environment",
    "Measurement",
    "MeasurementFailed",
    "Store",
    "StoreError",
    "TimingPlan",
    "default_store_path",
    "measure",
]
