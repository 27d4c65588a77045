#!/usr/bin/env python3
"""Asks a linked SELinux policy what arcbrokerd may do in it: its own rules, and those for all domains or daemons."""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True

from typing import Optional

import setools

SOURCE = "arcbroker_t"

# What must be allowed: a statement, a type, a class, a permission.
ALLOWED = (
    ("the agent's keys can be read", "arcbroker_key_t", "file", "read"),
    ("the unit of a caller can be read", "unconfined_t", "file", "read"),
    ("a passed listener accepts", "unconfined_t", "tcp_socket", "accept"),
    ("records can be appended", "arcbroker_log_t", "file", "append"),
)

# What must be allowed for these types alone: a statement, a class, a permission, the types.
ONLY = (
    ("TCP connects to upstream alone", "tcp_socket", "name_connect", {"arcbroker_upstream_port_t", "http_port_t"}),
    ("signals go to itself alone", "process", "signal", {SOURCE}),
    ("files are made as records and as sealed memory", "file", "create", {"arcbroker_log_t", "arcbroker_tmpfs_t"}),
    ("no port can be bound", "tcp_socket", "name_bind", set()),
    ("no address can be bound", "tcp_socket", "node_bind", set()),
    ("no capability is there", "capability", None, set()),
    ("no newer capability is there", "capability2", None, set()),
    ("no program can be executed", "file", "execute_no_trans", set()),
    ("no other domain can be entered", "process", "transition", set()),
    ("no process can be traced", "process", "ptrace", set()),
    ("no memory can be made executable", "process", "execmem", set()),
    ("no UDP socket can be made", "udp_socket", "create", set()),
    ("no raw socket can be made", "rawip_socket", "create", set()),
    ("no packet socket can be made", "packet_socket", "create", set()),
)

# What must not be allowed: a statement, a type, a class, a permission.
REFUSED = (
    ("/etc/shadow cannot be read", "shadow_t", "file", "read"),
    ("the configuration cannot be written", "arcbroker_conf_t", "file", "write"),
    ("the agent's keys cannot be written", "arcbroker_key_t", "file", "write"),
    ("the program cannot be written", "arcbroker_exec_t", "file", "write"),
    ("records cannot be removed", "arcbroker_log_t", "file", "unlink"),
)


def rules_of(policy: setools.SELinuxPolicy) -> list[setools.AVRule]:
    """In one pass: there are some hundred thousand."""
    query = setools.TERuleQuery(policy, ruletype=["allow"], source=SOURCE)
    return list(query.results())


def targets(rules: list[setools.AVRule], kind: str, permission: Optional[str]) -> dict[str, str]:
    """The types that some rule allows this on, and the rule."""
    fitting = (rule for rule in rules if rule.tclass == kind and (permission is None or permission in rule.perms))
    return {str(target): str(rule) for rule in fitting for target in rule.target.expand()}


def judge(rules: list[setools.AVRule]) -> bool:
    good = []

    def tell(statement: str, holds: bool, detail: str) -> None:
        good.append(holds)
        print("ok" if holds else "FAIL", f"selinux: {statement}")
        if not holds:
            print("    ", detail)

    for statement, target, kind, permission in ALLOWED:
        tell(statement, target in targets(rules, kind, permission), "no rule allows it")
    for statement, kind, permission, expected in ONLY:
        found = targets(rules, kind, permission)
        tell(statement, set(found) == expected, "\n     ".join(sorted(set(found.values()))) or "no rule allows it")
    for statement, target, kind, permission in REFUSED:
        found = targets(rules, kind, permission)
        tell(statement, target not in found, found.get(target, ""))
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed, 0 skipped")
    return all(good)


if not judge(rules_of(setools.SELinuxPolicy(sys.argv[1]))):
    sys.exit(1)
