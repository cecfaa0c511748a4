"""Turns at the network."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch

from gscnn_lightning.prediction.turns import Stopped, Turns


@pytest.fixture
def turns():
    made = Turns(torch.device("cpu"), pixels=100)
    made.at_once, made.cores = 2, max(2, made.cores)
    before = torch.get_num_threads()
    yield made
    torch.set_num_threads(before)


def enter(turns, pixels, entered, leave):
    with turns.take(pixels):
        entered.set()
        leave.wait(10)


@pytest.mark.parametrize(("second", "together"), [(50, True), (51, False), (1000, False)])
def test_as_many_as_there_is_room_for(turns, second, together):
    entered, leave = [Event(), Event()], Event()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(enter, turns, 50, entered[0], leave)
        assert entered[0].wait(10)
        pool.submit(enter, turns, second, entered[1], leave)
        assert entered[1].wait(10 if together else 0.2) == together
        leave.set()
    assert entered[1].is_set()


def test_who_waits_is_told_that_it_is_over(turns):
    entered, leave = Event(), Event()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(enter, turns, 1000, entered, leave)
        assert entered.wait(10)
        waiting = pool.submit(enter, turns, 1, Event(), leave)
        turns.stop()
        with pytest.raises(Stopped):
            waiting.result(10)
        leave.set()
