"""Jobs: followed, stopped, counted; and what is left of them."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from promptglass.errors import Busy, ImageError, Stopped
from promptglass.jobs import Job, Jobs


class Picture:
    """Something heavy."""


def test_events_are_told_in_order_to_whoever_comes_when():
    def work(job: Job) -> str:
        for number in range(3):
            job.tell("step", number=number)
        return "done"

    job = Jobs().start("count", work)
    assert job.wait() == "done"
    told = [event for events in job.follow() for event in events]
    assert [(event["id"], event["number"]) for event in told] == [(1, 0), (2, 1), (3, 2)]
    assert [event["number"] for event in job.events(after=2)] == [2]


def test_a_stop_is_felt_at_the_next_progress():
    begun, felt = threading.Event(), threading.Event()

    def work(job: Job) -> None:
        begun.set()
        try:
            while True:
                job.progress("turning", 0, 1)
        finally:
            felt.set()

    job = Jobs().start("turn", work)
    begun.wait(5)
    job.stop()
    with pytest.raises(Stopped):
        job.wait()
    assert felt.is_set()
    assert job.as_json()["state"] == "stopped"


@pytest.mark.parametrize("error", [ImageError("a.png", "it is empty"), ValueError("no"), SystemExit(3)])
def test_a_failure_is_raised_again_and_keeps_nothing_alive(error, monkeypatch):
    monkeypatch.setattr("promptglass.jobs.log.exception", lambda *_: None)  # pytest keeps what is logged
    kept: list[weakref.ref[Picture]] = []

    def work(job: Job) -> None:
        picture = Picture()
        kept.append(weakref.ref(picture))
        try:
            raise KeyError(picture)
        except KeyError as cause:
            raise error from cause

    job = Jobs().start("fail", work)

    def handler() -> None:
        upload = Picture()
        kept.append(weakref.ref(upload))
        with pytest.raises(type(error), match=str(error)):
            job.wait()

    handler()
    gc.collect()
    assert job.state == "failed"
    assert [reference() for reference in kept] == [None, None]


def test_more_than_enough_is_refused_but_those_that_are_to_stop_take_no_place():
    free = threading.Event()
    jobs = Jobs(most=2)
    under_way = [jobs.start("wait", lambda job: free.wait(10)) for _ in range(2)]
    with pytest.raises(Busy):
        jobs.start("wait", lambda job: None)
    for job in under_way:
        job.stop()  # which it cannot feel: a host's lock, say
    jobs.start("wait", lambda job: None).wait()
    free.set()
    for job in under_way:
        job.wait()


def test_only_the_last_are_kept_and_none_that_runs():
    jobs = Jobs()
    free = threading.Event()
    running = jobs.start("wait", lambda job: free.wait(10))
    ended: list[Any] = []
    for _ in range(80):
        ended.append(jobs.start("quick", lambda job: None))
        ended[-1].wait()
    assert jobs.find(running.id) is running
    assert jobs.find(ended[0].id) is None
    assert jobs.find(ended[-1].id) is ended[-1]
    free.set()
