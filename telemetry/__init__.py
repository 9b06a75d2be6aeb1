"""How a process shows its metrics to Prometheus. What each room measures is in its `metrics.py`."""
