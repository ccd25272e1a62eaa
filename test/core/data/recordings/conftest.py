import pytest


@pytest.fixture
def check(request):
    """Compare a recording with what the test module's `write` has written: images beside another topic."""
    module = request.module

    def compare(recording, count=20):
        (channel,) = (c for c in recording.channels if c.topic == "/image")
        found = list(recording.messages([channel]))
        times = [module.START + i * module.STEP for i in range(count)]
        assert [m.received_ns for m in found] == [m.published_ns for m in found] == times
        assert [m.data for m in found] == [module.payload(i) for i in range(count)]
        assert {m.channel for m in found} == {channel}
        assert recording.received([channel]) == times
        assert recording.count([channel]) == count
        assert recording.span == (times[0], times[-1] + 1), "the other topic's last message is one nanosecond later"

    return compare
