"""The composition root: configuration, start-up, supervision, the `centre` command.

May import every room.
"""

import os
import secrets

# Ray reads these when it is imported, whoever imports it first, and hands them to its processes.
# The token keeps everybody else out of the ports that Ray opens on every interface.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
