"""One slot per camera, the newest frame, and nobody starves."""

import threading
import time
from types import SimpleNamespace

from vidseg_ros import mailbox
from vidseg_ros.mailbox import YIELD_S, Letter, Mailbox


def letter(number):
    return Letter(bytes([number]), number)


def test_the_newest_letter_takes_the_place_of_the_one_before():
    box = Mailbox()
    assert not box.put("front", letter(1))
    assert box.put("front", letter(2))
    assert box.put("front", letter(3))
    assert box.take() == letter(3)
    assert not box.put("front", letter(4))


def test_who_waits_longest_is_served_first_however_fast_others_are():
    box = Mailbox()
    box.put("fast", letter(1))
    box.put("slow", letter(2))
    box.put("fast", letter(3))
    assert box.take() == letter(3)
    box.put("fast", letter(4))
    assert box.take() == letter(2)
    assert box.take() == letter(4)


def test_it_never_holds_more_than_one_letter_per_camera():
    box = Mailbox()
    replaced = sum(box.put(camera, letter(i % 256)) for i in range(1000) for camera in "abc")
    assert replaced == 3 * 999
    assert box.discard() == 3
    assert box.discard() == 0


def test_take_waits_for_a_letter():
    box, taken = Mailbox(), []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.put("front", letter(1))
    thread.join(30)
    assert taken == [letter(1)]


def test_closing_lets_the_waiting_go_and_takes_nothing_more():
    box, taken = Mailbox(), []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(30)
    assert taken == [None]
    assert not box.put("front", letter(1)) and box.take() is None
    box.open()
    assert not box.put("front", letter(2)) and box.take() == letter(2)


def test_no_letter_is_handed_out_twice():
    box, taken = Mailbox(), []

    def work():
        while (item := box.take()) is not None:
            taken.append(item.received_ns)

    thread = threading.Thread(target=work)
    thread.start()
    replaced = sum(box.put("front", Letter(b"", i)) for i in range(20_000))
    replaced += box.discard()
    box.close()
    thread.join(30)
    assert taken == sorted(set(taken))
    assert len(taken) + replaced == 20_000


def test_whoever_leaves_a_letter_lets_a_waiting_worker_go_first(monkeypatch):
    pauses, taken = [], []
    monkeypatch.setattr(mailbox, "time", SimpleNamespace(sleep=pauses.append))
    box = Mailbox()
    box.put("front", letter(1))
    assert box.take() == letter(1) and pauses == []  # nobody waited
    worker = threading.Thread(target=lambda: taken.append(box.take()))
    worker.start()
    while not box._is_awaited:
        time.sleep(0.001)
    box.put("front", letter(2))
    worker.join()
    box.put("front", letter(3))
    assert taken == [letter(2)] and pauses == [YIELD_S]
