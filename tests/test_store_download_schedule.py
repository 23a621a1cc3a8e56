from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from store.catalog.download.fetch import Reply
from store.catalog.download.schedule import DownloadSchedule, DownloadTask, Policy

GOOD = Reply(200, body=None, not_modified=True)
BUSY = Reply(503, reason="http 503", retry=True)
GONE = Reply(404, reason="http 404")
DEAD = Reply(reason="connect: refused", retry=True, unreachable=True)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make(n_links=1, hosts=1, jitter=1.0, **policy):
    clock = Clock()
    schedule = DownloadSchedule(Policy(**policy), clock, lambda: jitter)
    for i in range(n_links):
        url = f"http://h{i % hosts}.example/{i}"
        schedule.add(DownloadTask(url, url))
    return schedule, clock


def take_all(schedule):
    return list(iter(schedule.take, None))


def test_no_more_requests_to_a_host_at_a_time_than_allowed():
    schedule, _ = make(n_links=20, hosts=2, per_host=3)
    jobs = take_all(schedule)
    assert Counter(job.url[:17] for job in jobs) == {"http://h0.example": 3, "http://h1.example": 3}
    schedule.finish(jobs[0], GOOD)
    assert len(take_all(schedule)) == 1


def test_a_rate_spreads_requests_over_time():
    schedule, clock = make(n_links=50, per_host=50, rate=10)
    asked = 0
    for tick in range(301):
        clock.now = 100 + tick / 100
        asked += len(take_all(schedule))
    assert 30 <= asked <= 33


def test_a_retry_waits_twice_as_long_each_time_and_ends_after_the_last():
    schedule, clock = make(retries=3, backoff_seconds=1.0)
    waits = []
    while schedule.n_left:
        job = schedule.take()
        schedule.finish(job, BUSY)
        if schedule.n_left:
            waits.append(schedule.wait_seconds())
            clock.now += waits[-1]
    (ended,) = schedule.ended()
    assert waits == [1.0, 2.0, 4.0]
    assert (ended.job.tries, ended.reason, ended.status) == (4, "http 503", 503)


def test_jitter_makes_a_wait_up_to_half_as_short():
    schedule, _ = make(backoff_seconds=1.0, jitter=0.0)
    schedule.finish(schedule.take(), BUSY)
    assert schedule.wait_seconds() == 0.5


def test_what_can_not_pass_is_not_tried_again():
    schedule, _ = make()
    schedule.finish(schedule.take(), GONE)
    assert [ended.reason for ended in schedule.ended()] == ["http 404"]
    assert schedule.n_left == 0


def test_a_host_that_asks_for_a_pause_is_not_asked_before():
    schedule, clock = make(n_links=5, per_host=1)
    schedule.finish(schedule.take(), Reply(429, reason="http 429", retry=True, retry_after=20.0))
    clock.now = 19.9
    assert schedule.take() is None
    clock.now = 20.0
    assert schedule.take() is not None


def test_a_pause_of_one_host_does_not_hold_up_another():
    schedule, _ = make(n_links=4, hosts=2, per_host=1)
    job = schedule.take()
    schedule.finish(job, Reply(429, reason="http 429", retry=True, retry_after=20.0))
    other = schedule.take()
    assert other is not None
    assert other.url[:17] != job.url[:17]


def test_a_host_that_asks_for_a_day_is_left_alone_for_this_run():
    schedule, _ = make(n_links=100, per_host=2)
    first, second = take_all(schedule)
    schedule.finish(first, Reply(429, reason="http 429", retry=True, retry_after=86400.0))
    schedule.finish(second, BUSY)
    reasons = Counter(ended.reason for ended in schedule.ended())
    assert schedule.n_left == 0
    assert reasons["http 429: asks to wait 86400 s"] == 98


def test_a_throttled_host_is_asked_less_at_a_time_and_later_more_again():
    schedule, clock = make(n_links=1000, per_host=8)
    for job in take_all(schedule):
        schedule.finish(job, BUSY)
    clock.now = 60.0
    jobs = take_all(schedule)
    assert len(jobs) == 4
    while len(jobs) < 8 and schedule.n_left:
        for job in jobs:
            schedule.finish(job, GOOD)
        jobs = take_all(schedule)
    assert len(jobs) == 8


def test_a_dead_host_ends_all_its_links_long_before_each_was_tried():
    schedule, clock = make(n_links=10_000, per_host=16)
    asked = 0
    while schedule.n_left:
        for job in take_all(schedule):
            asked += 1
            schedule.finish(job, DEAD)
        clock.now += schedule.wait_seconds() or 0.0
    assert asked < 600
    assert clock.now < 60
    assert sum(1 for _ in schedule.ended()) == 10_000


def test_a_short_break_of_the_network_ends_nothing():
    schedule, clock = make(n_links=100, per_host=16, backoff_seconds=1.0)
    for job in take_all(schedule):
        schedule.finish(job, DEAD)
    while schedule.n_left:
        clock.now += 0.5
        for job in take_all(schedule):
            schedule.finish(job, GOOD)
    assert list(schedule.ended()) == []


def test_five_redirects_are_followed_and_a_sixth_is_not():
    schedule, _ = make()
    for hop in range(6):
        job = schedule.take()
        assert job.tries == 1
        schedule.finish(job, Reply(302, redirect=f"http://elsewhere.example/{hop}"))
    (ended,) = schedule.ended()
    assert ended.reason == "redirects: over 5"


def test_a_redirect_obeys_the_limit_of_the_host_it_leads_to():
    schedule, _ = make(n_links=6, hosts=6, per_host=2)
    for job in take_all(schedule):
        schedule.finish(job, Reply(302, redirect=f"http://cdn.example/{job.link[-1]}"))
    assert len(take_all(schedule)) == 2


replies = st.sampled_from([GOOD, BUSY, GONE, DEAD, Reply(302, redirect="http://h0.example/r")])


@given(st.integers(1, 30), st.integers(1, 4), st.lists(replies, min_size=1, max_size=50), st.integers(1, 5))
def test_every_link_ends_exactly_once_whatever_servers_do(n_links, hosts, answers, per_host):
    schedule, clock = make(n_links, hosts, per_host=per_host, rate=2.0, dead_after=4, dead_seconds=5.0)
    delivered, turn = [], 0
    while schedule.n_left:
        jobs = take_all(schedule)
        for job in jobs:
            turn += 1
            if schedule.finish(job, answers[turn % len(answers)]):
                delivered.append(job.link)
        if not jobs:
            clock.now += schedule.wait_seconds() + 1e-6
    links = delivered + [ended.job.link for ended in schedule.ended()]
    assert len(links) == n_links == len(set(links))
