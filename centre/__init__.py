"""The composition root: configuration, start-up, supervision, the `centre` command.

May import every room.
"""

import os

# Ray reads these when it is imported, whoever imports it first, and hands them to its processes.
# The token (centre.ray_runtime) keeps others out of the ports that Ray opens on every interface.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
