import io
import json

from nayer_core.commands.event_stream import EventStream
from nayer_core.contract.events import MetricsEvent, Phase, PhaseEvent, ProgressEvent, parse_event


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(epoch):
    return ProgressEvent(phase=Phase.DISTILL, epoch=epoch, epochs=100, fraction=epoch / 100)


def lines_of(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_progress_is_written_twice_a_second_at_most():
    out, clock = io.StringIO(), Clock()
    stream = EventStream(out, clock)
    for step in range(100):  # ten seconds, ten a second
        clock.now = 100 + step / 10
        stream.emit(progress(step))
    stream.flush()
    epochs = [event["epoch"] for event in lines_of(out)]
    assert 19 <= len(epochs) <= 21
    assert epochs == sorted(epochs)
    assert epochs[-1] == 99


def test_waiting_progress_is_written_before_a_phase_and_no_phase_is_lost():
    out, clock = io.StringIO(), Clock()
    stream = EventStream(out, clock)
    for epoch in (1, 2, 3):
        stream.emit(progress(epoch))
        stream.emit(PhaseEvent(phase=Phase.DISTILL))
        stream.emit(progress(epoch + 10))
    stream.emit(PhaseEvent(phase=Phase.EVALUATE))
    events = lines_of(out)
    assert [event["event"] for event in events if event["event"] == "phase"] == ["phase"] * 4
    assert [event["epoch"] for event in events if event["event"] == "progress"] == [1, 2, 3, 13]


def test_waiting_metrics_keep_every_name_with_its_newest_value():
    out = io.StringIO()
    stream = EventStream(out, Clock())
    stream.emit(MetricsEvent(epoch=1, step=1, values={"loss": 3.0}))
    stream.emit(MetricsEvent(epoch=1, step=2, values={"loss": 2.0, "accuracy": 0.5}))
    stream.emit(MetricsEvent(epoch=1, step=3, values={"loss": 1.0}))
    stream.flush()
    first, last = lines_of(out)
    assert first["values"] == {"loss": 3.0}
    assert (last["step"], last["values"]) == (3, {"loss": 1.0, "accuracy": 0.5})


def test_every_line_reads_back_as_the_event_it_was():
    out = io.StringIO()
    event = PhaseEvent(phase=Phase.INSPECT)
    EventStream(out, Clock()).emit(event)
    assert parse_event(out.getvalue()) == event
