"""Who may do what on the broker, written down as each broker wants it.

A device publishes under its own id and reads its own commands; the account of devices run by us (replay, simulator)
does so for every device; the service reads all and writes commands; the gate changes accounts. Their names can't be
those of devices, whose ids begin with a letter or digit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

SERVICE: Final = "@service"
FLEET: Final = "@devices"
GATE: Final = "@gate"
OWN: Final = (SERVICE, FLEET, GATE)
WRITES: Final = ("ecg", "meta", "status", "events", "backfill", "polar", "movesense")
"""Leaves of the topics that a device publishes on."""
READS: Final = ("commands",)
STORED: Final = "backfill"
"""Leaf on which a device may be forbidden to publish for a while."""
LIMITS: Final = "rw/limits"
"""Here ingest says which devices to shut out for a while, altogether or with what they had stored; the gate listens."""
CONTROL: Final = "$CONTROL/dynamic-security/v1"

_ADMITS: Final = ("publishClientReceive", "subscribePattern", "subscribeLiteral")


def password_file(hashes: Mapping[str, str]) -> str:
    """Mosquitto's password file."""
    return "".join(f"{name}:{hashed}\n" for name, hashed in hashes.items())


def acl_file(held: Iterable[str] = ()) -> str:
    """Mosquitto's rules where it has no plug-in for them; ``%u`` is the name of the account.

    Devices that are `held` may send nothing that they had stored.
    """
    lines = [f"user {SERVICE}", "topic read rw/v1/#", "topic write rw/v1/+/commands", f"topic write {LIMITS}/+"]
    lines += [f"user {GATE}", f"topic read {LIMITS}/+", f"user {FLEET}"]
    lines += [f"topic write rw/v1/+/{leaf}" for leaf in WRITES] + [f"topic read rw/v1/+/{leaf}" for leaf in READS]
    for device in held:
        lines += [f"user {device}", f"topic deny rw/v1/{device}/{STORED}"]
    lines += [f"pattern write rw/v1/%u/{leaf}" for leaf in WRITES]
    lines += [f"pattern read rw/v1/%u/{leaf}" for leaf in READS]
    return "\n".join(lines) + "\n"


def dynamic_security(devices: Iterable[str]) -> str:
    """Write what mosquitto's dynamic-security plug-in begins with; passwords stay in the password file.

    Parameters
    ----------
    devices : iterable of str
        Ids of the devices that may log in.
    """
    devices = list(devices)
    own: dict[str, tuple[list[str], list[str]]] = {
        SERVICE: (["rw/v1/+/commands", f"{LIMITS}/+"], ["rw/v1/#", "$share/+/rw/v1/#"]),
        FLEET: ([f"rw/v1/+/{leaf}" for leaf in WRITES], [f"rw/v1/+/{leaf}" for leaf in READS]),
        GATE: (["$CONTROL/dynamic-security/#"], ["$CONTROL/dynamic-security/#", f"{LIMITS}/+"]),
    }
    roles = [{"rolename": name, "acls": _rules(writes, reads)} for name, (writes, reads) in own.items()]
    clients: list[dict[str, Any]] = [{"username": name, "roles": [{"rolename": name}]} for name in own]
    return json.dumps(
        {
            "defaultACLAccess": {
                "publishClientSend": False,
                "publishClientReceive": False,
                "subscribe": False,
                "unsubscribe": True,
            },
            "clients": clients + [device_client(device) for device in devices],
            "groups": [],
            "roles": roles + [device_role(device) for device in devices],
        }
    )


def device_role(device: str, *, held: bool = False) -> dict[str, Any]:
    """Say what one device may do; the plug-in knows no pattern for the name of an account.

    A device that is `held` may send nothing that it had stored.
    """
    writes = [f"rw/v1/{device}/{leaf}" for leaf in WRITES if not held or leaf != STORED]
    return {"rolename": device, "acls": _rules(writes, [f"rw/v1/{device}/{leaf}" for leaf in READS])}


def held_in(rules: str) -> list[str]:
    """Devices that are held by what the plug-in keeps."""
    writes = {
        role["rolename"]: {rule["topic"] for rule in role.get("acls", []) if rule["acltype"] == "publishClientSend"}
        for role in json.loads(rules).get("roles", [])
    }
    return [name for name in writes if name not in OWN and f"rw/v1/{name}/{STORED}" not in writes[name]]


def device_client(device: str) -> dict[str, Any]:
    """Account of one device; with any other client id than its own it could push another client off the broker."""
    return {"username": device, "clientid": device, "roles": [{"rolename": device}]}


def _rules(writes: Iterable[str], reads: Iterable[str]) -> list[dict[str, Any]]:
    rules = [("publishClientSend", topic) for topic in writes]
    rules += [(kind, topic) for topic in reads for kind in _ADMITS]
    return [{"acltype": kind, "topic": topic, "allow": True} for kind, topic in rules]
