"""Celery's result backend: `result_backend = "data-bridge://host:port/namespace"`.

Results keep their types, a final state is never overwritten, and whoever waits is told, never polls.
"""

from data_bridge.kv.celery.backend import DataBridgeBackend
from data_bridge.kv.celery.consumer import ResultConsumer

__all__ = ["DataBridgeBackend", "ResultConsumer"]
