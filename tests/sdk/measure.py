"""What the broker adds to the whole time of a client's process.

Two runs make a pair: one through `arcbroker exec` and a broker that has the tokens, one with the same variables from
the stand-in. They take turns; printed are the medians over the pairs.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import rig
from catalogue import Client
from scene import Broker, StandIn
from variants import Trial

PAIRS = 5
WANTED_MS = 50.0


def client(client: Client, installation: Path, binaries: Path) -> str:
    with contextlib.ExitStack() as stack:
        trials = []
        for kind in (Broker, StandIn):
            directory = rig.temporary_directory(stack)
            trials.append(Trial(stack, directory, client, installation, kind(stack, binaries, directory)))
        for trial in trials:
            milliseconds(trial)
        pairs = [[milliseconds(trial) for trial in trials] for _ in range(PAIRS)]
    broker, stand_in = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    added = statistics.median(with_broker - without for with_broker, without in pairs)
    verdict = "within" if added < WANTED_MS else "above"
    return (
        f"{client.name}: {broker:.0f} ms through the broker, {stand_in:.0f} ms with the stand-in; "
        f"the broker adds {added:+.0f} ms, {verdict} {WANTED_MS:.0f} ms"
    )


def milliseconds(trial: Trial) -> float:
    """Of one process that fetches a token for each resource."""
    before = len(trial.scene.requests())
    started = time.monotonic()
    session = trial.start()
    for resource in trial.client.resources:
        session.ask(resource)
    session.finish()
    took = (time.monotonic() - started) * 1000
    asked = [request.resource for request in trial.scene.requests()[before:]]
    wanted = [*trial.client.first, *trial.client.resources]
    if asked != wanted:
        raise rig.Failure(f"{trial.client.name}: requests for {asked} instead of {wanted}")
    return took
