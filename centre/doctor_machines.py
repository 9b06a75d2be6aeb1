"""What `centre doctor` finds of a centre's machines and their Ray: who is there, who reaches it."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc

from centre import machine
from centre.findings import Finding, State

ASK_SECONDS = 3.0


def machines(state: dict[str, Any]) -> Finding:
    there = Counter(health["machine"] for health in state["actors"].values())
    note = ", ".join(f"{name} {address} ({there[name]})" for name, address in
                     state["machines"].items())  # fmt: skip
    note += f"; 加入 join: centre up --join {state['joining']}"
    return Finding("machines", "机器 machines", State.OK, note, present=True, reachable=True)


def ray_token(ports: Sequence[machine.Port]) -> Finding:
    """Whether Ray's own port turns away who brings no token: asked, not believed."""
    words = "Ray 令牌认证 token authentication"
    head = next((p for p in ports if p.process == "gcs_server"), None)
    if head is None:
        return Finding("ray_token", words, State.NOTICE, "gcs_server: no port to be seen")
    method = "/ray.rpc.NodeInfoGcsService/CheckAlive"
    with grpc.insecure_channel(f"127.0.0.1:{head.port}") as channel:
        try:
            channel.unary_unary(method, bytes, bytes)(b"", timeout=ASK_SECONDS)
            refused = False
        except grpc.RpcError as e:
            refused = e.code() is grpc.StatusCode.UNAUTHENTICATED
    if refused:
        return Finding("ray_token", words, State.OK, "on", configured=True, reachable=True)
    if _speaks_tls(head.port):
        note = "TLS; 未持证书者不可问 asked by nobody without a certificate"
        return Finding("ray_token", words, State.OK, note, configured=True, reachable=True)
    mend = "unset RAY_AUTH_MODE; centre up"
    return Finding("ray_token", words, State.MEND, "OFF", mend, configured=False, reachable=True)


def _speaks_tls(port: int) -> bool:
    try:
        ssl.get_server_certificate(("127.0.0.1", port), timeout=ASK_SECONDS)
    except OSError:
        return False
    return True


def exposed(ports: Sequence[machine.Port], machines: Sequence[str]) -> Finding:
    """Ray and the virtual readers listen on every interface, whatever they are told. `machines`:
    addresses of those of a centre on several, which reach one another's."""
    close = sorted({p.port for p in ports if p.exposed})
    if not close:
        return Finding("ports", "端口 ports", State.OK, "loopback only")
    others = f"ip saddr != {{ {', '.join(machines)} }} " if machines else ""
    mend = (
        f"nft add rule inet filter input iif != lo {others}tcp dport "
        f"{{ {', '.join(map(str, close))} }} drop"
    )
    note = f"{len(close)} 个对外可达，须由防火墙关闭 open to other machines: close them"
    return Finding("ports", "端口 ports", State.NOTICE, note, mend)
