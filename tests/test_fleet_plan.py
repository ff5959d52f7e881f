"""What a fleet consists of, how a plan is found again, and a recorder that waits for its range."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rhythmwatch.fleet_actor import until_free
from rhythmwatch.fleet_plan import URGENT, Plan, Settings, kind_of, owned, plan_of
from rhythmwatch.ranges import READERS
from rhythmwatch.recorder import hold_partitions

DEADLINE_S = 60.0
WHOLE = Plan(
    bus="redis://bus", broker="mqtts://broker", workers=3, ingests=2, spares=1, cpus=0.5, replicas=1,
    authority="/ca.pem", history="postgresql://history", readers=2, recordings="/shared", consented=False,
    mail="smtps://mail", mail_from="ward@example.org",
)  # fmt: skip


def standing(plan: Plan) -> dict[str, Settings]:
    """Give what each process of a fleet was told."""
    return plan.parts() | {f"spare-{number}": plan.told("spare") for number in range(1, plan.spares + 1)}


def test_every_partition_has_one_process_of_each_kind() -> None:
    """Workers, and each kind of readers, share all partitions; ingests have none."""
    parts = WHOLE.parts()
    assert {"worker-0-20", "historian-0-31", "recorder-32-63", "ingest-2"} <= parts.keys()
    for kind in ("worker", *READERS):
        mine = [partition for name in parts if kind_of(name) == kind for partition in owned(name)]
        assert sorted(mine) == list(range(64)), kind
    assert not owned("ingest-2")
    assert not owned("spare-1")


def test_readers_are_placed_where_they_find_what_they_need() -> None:
    """No database, no readers; no folder that all nodes share, no recorders and no evidence."""
    assert {kind_of(name) for name in Plan("redis://bus").parts()} == {"worker"}
    assert {kind_of(name) for name in Plan("redis://bus", history="h").parts()} == {"worker", "historian", "notifier"}


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan("b", workers=65), "1 to 64"),
        (Plan("b", history="h", readers=0), "1 to 64"),
        (Plan("b", ingests=1), "broker"),
        (Plan("b", recordings="/shared"), "history"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(plan: Plan, why: str) -> None:
    """In words."""
    with pytest.raises(ValueError, match=why):
        plan.parts()


def test_the_plan_of_a_fleet_is_found_again() -> None:
    """From what its processes were told, also where there are no readers."""
    assert plan_of(standing(WHOLE)) == WHOLE
    bare = Plan("redis://bus", "mqtt://broker", workers=2, ingests=1)
    assert plan_of(standing(bare)) == bare


def test_a_spare_knows_what_the_urgent_need() -> None:
    """It does their work from what it was told itself."""
    for kind in URGENT:
        assert WHOLE.told("spare").items() >= WHOLE.told(kind).items()


def test_a_fleet_is_not_scaled_by_half_of_what_it_was_told() -> None:
    """One that is silent is counted; but nobody else knows what a recorder must know."""
    told = standing(WHOLE)
    assert plan_of({**told, "recorder-0-31": {}, "ingest-1": {}, "ingest-2": {}}) == WHOLE
    with pytest.raises(ValueError, match=r"recorder-0-31, recorder-32-63: wait"):
        plan_of({**told, "recorder-0-31": {}, "recorder-32-63": {}})


async def test_a_recorder_waits_until_the_former_one_has_ended(tmp_path: Path) -> None:
    """It begins only once nobody records any of its partitions, and stops waiting when it is told to."""
    stop = asyncio.Event()
    with hold_partitions(tmp_path, range(20, 40)):
        assert await asyncio.wait_for(until_free(tmp_path, range(20), stop), DEADLINE_S)
        waiting = asyncio.create_task(until_free(tmp_path, range(32), stop))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
    assert await asyncio.wait_for(waiting, DEADLINE_S)
    missing = asyncio.create_task(until_free(tmp_path / "not mounted", range(32), stop))
    stop.set()
    assert not await asyncio.wait_for(missing, DEADLINE_S)
    assert not (tmp_path / "not mounted").exists()
