"""What travels on the bus comes back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.messages import Action, Entry, Inbound, pack, pack_inbound, partition_of, unpack_action, unpack_inbound


@given(st.sampled_from(Entry), st.integers(0, 2**63), st.text(max_size=40), st.binary(max_size=200))
def test_an_entry_survives_the_bus(kind: Entry, ms: int, patient: str, payload: bytes):
    """Head and payload of an entry are read back unchanged."""
    entry = Inbound(kind, ms, patient, payload)
    assert unpack_inbound(pack_inbound(entry)) == entry


@given(st.binary(max_size=9))
def test_a_short_entry_is_refused_as_one(data: bytes):
    """Bytes shorter than a head are refused in words."""
    with pytest.raises(ValueError, match=r"entry of \d+ bytes"):
        unpack_inbound(data)


def test_an_action_survives_the_bus():
    """An acknowledgement keeps who did it and to which alarm."""
    action = Action("ack", user="ward", alarm="p/VTACH/1/250", values={"limit": 120.0})
    assert unpack_action(pack(action)) == action


def test_patients_spread_over_the_partitions():
    """Partitions are stable and all used."""
    assert {partition_of(f"bed-{i}", 8) for i in range(200)} == set(range(8))
    assert partition_of("bed-1", 64) == 40
