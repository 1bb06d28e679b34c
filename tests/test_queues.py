"""What stands in whose queue: the rows of a lotus-miner, over polls, with all that makes them hard to read."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.fields import Owner, fits, has_no_null
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.sources.lotus.answers import Job, Request, WorkerStat
from telemetry.sources.lotus.queues import NO_WORKER, UNKNOWN_HOST, Poll, Queues, _Recent
from telemetry.sources.lotus.tasks import (
    SHORT_NAMES,
    USUAL_SECONDS,
    counts_by_short_name,
    in_order,
    overdue_seconds,
    short_name,
)

AP, PC1, PC2, C1, C2 = (
    "seal/v0/addpiece",
    "seal/v0/precommit/1",
    "seal/v0/precommit/2",
    "seal/v0/commit/1",
    "seal/v0/commit/2",
)
GET, FIN, GSK, DC = "seal/v0/fetch", "seal/v0/finalize", "seal/v0/regensectorkey", "seal/v0/datacid"
WDP = "post/v0/windowproof"

RUNNING, PREPARED, ASSIGNED, RET_WAIT, RETURNED, RET_DONE = 0, 1, 2, -1, -2, -3

GIB = 1024**3
HOUR_MS = 3600 * 1000
NOW = 1_721_700_000_000
SESSION = "07070707-0707-0707-0707-070707070707"

Jobs: TypeAlias = Mapping[str, Sequence[Job]]
Stats: TypeAlias = Mapping[str, WorkerStat]


def worker(
    hostname: str = "seal01",
    *,
    enabled: bool = True,
    tasks: tuple[str, ...] | None = (PC1, AP),
    counts: Mapping[str, int] | None = None,
) -> WorkerStat:
    return WorkerStat(hostname=hostname, enabled=enabled, tasks=tasks, task_counts=counts)


def job(
    sector: int,
    task: str = PC1,
    run_wait: int = RUNNING,
    *,
    call: str | None = None,
    start: int | None = NOW - 1000,
    hostname: str = "",
    miner: int = 1234,
) -> Job:
    return Job(
        miner=miner, sector=sector, task=task, run_wait=run_wait, start_ms=start, hostname=hostname, call_id=call
    )


def request(sector: int, task: str = PC1, priority: int | None = None, *, miner: int = 1234) -> Request:
    return Request(miner=miner, sector=sector, task=task, priority=priority)


def read(stats: Stats, jobs: Jobs, requests: Sequence[Request] | None = (), **more: Any) -> Poll:
    return poll(Queues(), stats, jobs, requests, **more)


def poll(
    queues: Queues,
    stats: Stats,
    jobs: Jobs,
    requests: Sequence[Request] | None = (),
    *,
    now_ms: int = NOW,
    session: str | None = SESSION,
    **more: Any,
) -> Poll:
    return queues.poll(stats, jobs, requests, now_ms, session, **more)


def current(told: Poll, host: str = "seal01") -> list[dict[str, Any]]:
    return _queue(told, host, "currentQueue")


def pending(told: Poll, host: str = "seal01") -> list[dict[str, Any]]:
    return _queue(told, host, "pendingQueue")


def _queue(told: Poll, host: str, name: str) -> list[dict[str, Any]]:
    queue = told.hosts[host][name]
    assert isinstance(queue, list)
    return queue


def sectors(queue: Sequence[Mapping[str, Any]]) -> list[int]:
    return [entry["sector"] for entry in queue]


def state(told: Poll, host: str = "seal01") -> Any:
    return told.hosts[host]["taskState"]


# How the entries of a task queue come not to match the tasks, 1 to 12.


def test_trap_1_the_jobs_of_all_workers_of_a_host_stand_in_its_queue() -> None:
    told = read({"a": worker(), "b": worker()}, {"a": [job(1, call="x")], "b": [job(2, call="y")]})
    assert sectors(current(told)) == [1, 2]
    assert [entry["worker"] for entry in current(told)] == ["a", "b"]


def test_trap_2_jobs_without_an_id_do_not_fall_into_one_and_a_sector_may_have_several() -> None:
    jobs = [job(5, PC2, PREPARED), job(5, GET, call="x"), job(5, GET, call="y"), job(6, PC2, ASSIGNED)]
    told = read({"a": worker()}, {"a": jobs})
    assert sectors(current(told)) == [5, 5]
    assert sectors(pending(told)) == [5, 6]


def test_trap_3_the_same_sector_of_two_miners_is_two() -> None:
    queues = Queues()
    both = [job(5, run_wait=ASSIGNED, miner=1), job(5, run_wait=ASSIGNED, miner=2)]
    poll(queues, {"a": worker()}, {"a": both})
    told = poll(queues, {"a": worker()}, {"a": [both[0], job(5, call="x", miner=1)]})
    assert (len(current(told)), len(pending(told))) == (1, 2)  # that of miner 2 did not become miner 1's


def test_trap_4_running_are_those_that_run_and_those_that_are_awaited() -> None:
    jobs = [job(n, run_wait=n, call=str(n)) for n in (RUNNING, RET_WAIT, RETURNED, RET_DONE)]
    told = read({"a": worker()}, {"a": [*jobs, job(7, run_wait=PREPARED), job(8, run_wait=ASSIGNED)]})
    assert (told.hosts["seal01"]["runningTasks"], told.hosts["seal01"]["pendingTasks"], told.returned) == (2, 2, 2)


def test_trap_5_a_worker_that_went_between_the_two_reads_keeps_its_host() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {})
    told = poll(queues, {"b": worker()}, {"a": [job(1, call="x")]})
    assert sectors(current(told)) == [1]


def test_trap_6_what_a_worker_counts_more_or_less_than_it_runs_moves_no_entry() -> None:
    counts = {"8:seal/v0/precommit/1": 1, "8:seal/v0/finalize": 1, "8:": 3, "8:seal/v0/fetch": 0}
    told = read({"a": worker(counts=counts)}, {"a": [job(1, call="x"), job(2, call="y"), job(3, GET, call="z")]})
    assert told.hosts["seal01"]["runningTasks"] == 3
    assert state(told) == "enabled PC1:2 FIN:1 GET:1"


def test_trap_7_only_requests_make_the_unassigned_list_and_only_jobs_the_queues() -> None:
    told = read({"a": worker()}, {"a": [job(1, call="x")]}, [request(2)])
    assert sectors(current(told)) == [1]
    assert told.unassigned == {
        "unassignedQueue": [{"sector": 2, "task": PC1, "taskShort": "PC1"}],
        "unassignedTasks": 1,
    }


def test_trap_8_a_request_belongs_to_no_host() -> None:
    told = read({"a": worker()}, {}, [request(2, PC1, 1024)])
    assert (current(told), pending(told)) == ([], [])


def test_trap_9_a_job_under_no_worker_stands_on_the_host_that_lotus_names() -> None:
    told = read({}, {NO_WORKER: [job(1, C2, RET_WAIT, call="x", hostname="seal02")]})
    assert set(told.hosts) == {"seal02"}
    assert current(told, "seal02")[0]["state"] == "ret-wait"


def test_trap_10_accepted_task_types_are_no_running_tasks() -> None:
    told = read({"a": worker(tasks=(PC2, PC1, AP))}, {})
    assert told.hosts["seal01"]["taskType"] == [AP, PC1, PC2]
    assert (state(told), told.hosts["seal01"]["runningTasks"]) == ("enabled", 0)


def test_trap_11_a_host_that_vanished_gets_empty_lists() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, call="x")]})
    poll(queues, {}, {})
    told = poll(queues, {}, {})
    assert told.hosts["seal01"] == {
        "currentQueue": [],
        "pendingQueue": [],
        "taskState": "unregistered",
        "runningTasks": 0,
        "pendingTasks": 0,
        "taskType": [AP, PC1],
    }


def test_trap_11_a_host_that_vanished_a_day_ago_is_forgotten() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {})
    poll(queues, {}, {}, now_ms=NOW + 25 * HOUR_MS)
    assert poll(queues, {}, {}, now_ms=NOW + 25 * HOUR_MS).hosts == {}


def test_trap_12_a_count_is_the_length_of_the_list_beside_it_also_while_an_entry_is_missing() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, call="x"), job(2, run_wait=ASSIGNED)]}, [request(3)])
    told = poll(queues, {"a": worker()}, {"a": [job(4, call="y")]}, [request(5), request(6)])
    fields = told.hosts["seal01"]
    assert (fields["runningTasks"], fields["pendingTasks"]) == (len(current(told)), len(pending(told))) == (2, 1)
    assert (state(told), told.unassigned["unassignedTasks"]) == ("enabled PC1:2", 2)


# The facts about jobs, 1 to 12.


def test_fact_1_a_task_goes_from_unassigned_to_assigned_to_prepared_to_running_and_stands_in_one_place() -> None:
    queues = Queues()
    steps: list[tuple[list[Job], list[Request]]] = [
        ([], [request(5)]),
        ([job(5, run_wait=3)], []),
        ([job(5, run_wait=2)], []),
        ([job(5, run_wait=PREPARED, start=NOW - 500)], []),
        ([job(5, call="x", start=NOW - 100)], []),
    ]
    places = []
    for jobs, requests in steps:
        told = poll(queues, {"a": worker()}, {"a": jobs}, requests)
        unassigned = told.unassigned["unassignedTasks"]
        places.append((unassigned, [entry["state"] for entry in [*pending(told), *current(told)]]))
    assert places == [(1, []), (0, ["assigned"]), (0, ["assigned"]), (0, ["prepared"]), (0, ["running"])]


def test_fact_2_an_entry_missing_for_one_poll_stays_and_is_gone_at_the_second() -> None:
    queues = Queues()
    jobs = {"a": [job(1, call="x"), job(2, run_wait=ASSIGNED)]}
    first = poll(queues, {"a": worker()}, jobs)
    second = poll(queues, {"a": worker()}, {"a": []})
    third = poll(queues, {"a": worker()}, {})
    assert second == first
    assert (current(third), pending(third)) == ([], [])


def test_fact_2_an_entry_that_came_back_after_a_poll_stands_once() -> None:
    queues = Queues()
    jobs = {"a": [job(1, call="x")]}
    told = [poll(queues, {"a": worker()}, now) for now in (jobs, {}, jobs, {}, jobs)]
    assert all(one == told[0] for one in told)


def test_fact_2_a_task_that_went_to_another_worker_moves_at_once() -> None:
    queues = Queues()
    stats = {"a": worker(), "b": worker("seal02")}
    poll(queues, stats, {"a": [job(1, run_wait=ASSIGNED)]})
    told = poll(queues, stats, {"b": [job(1, run_wait=ASSIGNED)]})
    assert (sectors(pending(told)), sectors(pending(told, "seal02"))) == ([], [1])


def test_fact_2_a_returned_task_is_not_missing() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, call="x")]})
    told = poll(queues, {"a": worker()}, {NO_WORKER: [job(1, run_wait=RETURNED, call="x")]})
    assert (current(told), told.returned) == ([], 1)


def test_fact_2_a_returned_task_that_is_collected_stands_nowhere() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {NO_WORKER: [job(1, run_wait=RETURNED, call="x", hostname="seal01")]})
    told = poll(queues, {"a": worker()}, {})
    assert (current(told), pending(told), told.returned) == ([], [], 0)


def test_fact_2_of_one_task_on_two_workers_the_missing_one_stays_on_its_own() -> None:
    queues = Queues()
    stats = {"a": worker(), "b": worker("seal02")}
    both = {uuid: [job(1, GET, ASSIGNED)] for uuid in stats}
    first = poll(queues, stats, both)
    assert poll(queues, stats, {"b": both["b"]}) == first
    assert poll(queues, stats, both) == first
    assert poll(queues, stats, {"a": both["a"]}) == first


def test_fact_2_a_task_of_which_several_were_there_leaves_only_what_is_missing() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, GET, call="x"), job(1, GET, PREPARED), job(1, GET, PREPARED)]})
    told = poll(queues, {"a": worker()}, {"a": [job(1, GET, call="y")]})
    assert ([entry["callId"] for entry in current(told)], len(pending(told))) == (["x", "y"], 1)


def test_fact_3_a_job_without_an_id_is_known_by_its_sector_and_tells_no_call() -> None:
    told = read({"a": worker()}, {"a": [job(4556, PC2, ASSIGNED), job(4557, PC2, PREPARED)]})
    assert sectors(pending(told)) == [4556, 4557]
    assert all("callId" not in entry for entry in pending(told))


def test_fact_3_rows_that_are_alike_in_all_stay_as_many() -> None:
    told = read({"a": worker()}, {"a": [job(5, GET, ASSIGNED)] * 3})
    assert sectors(pending(told)) == [5, 5, 5]


def test_fact_4_a_miners_restart_leaves_a_call_on_its_host_though_lotus_names_none() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, call="x")]})
    for nameless in ("", "[err]"):
        jobs = {NO_WORKER: [job(1, run_wait=RET_WAIT, call="x", hostname=nameless)]}
        told = poll(queues, {}, jobs, session="another")
        assert sectors(current(told)) == [1]
        assert state(told) == "unregistered PC1:1"


def test_fact_4_a_call_that_nobody_knows_stands_on_the_unknown_host() -> None:
    told = read({"a": worker()}, {NO_WORKER: [job(1, run_wait=RET_WAIT, call="x")]})
    assert sectors(current(told, UNKNOWN_HOST)) == [1]
    assert current(told) == []


def test_fact_4_a_task_that_lotus_never_tracks_counts_once_on_its_registered_worker() -> None:
    stats = {"a": worker(counts={"8:seal/v0/regensectorkey": 1})}
    told = read(stats, {NO_WORKER: [job(1, GSK, RET_WAIT, call="x", hostname="seal01")]})
    assert (state(told), len(current(told))) == ("enabled GSK:1", 1)


def test_fact_5_what_a_restarted_miner_does_not_list_goes_at_once() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, AP, call="x"), job(2, run_wait=ASSIGNED)]})
    told = poll(queues, {"a": worker()}, {}, session="another")
    assert (current(told), pending(told)) == ([], [])


def test_fact_5_a_poll_without_a_session_is_no_restart() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, AP, call="x")]})
    assert sectors(current(poll(queues, {"a": worker()}, {}, session=None))) == [1]


def test_fact_6_a_post_worker_tells_its_proof_in_the_state_alone() -> None:
    told = read({"a": worker("post01", tasks=(WDP,), counts={f"8:{WDP}": 1})}, {})
    assert (state(told, "post01"), current(told, "post01")) == ("enabled WDP:1", [])
    assert told.hosts["post01"]["taskType"] == [WDP]


def test_fact_7_data_cids_have_no_sector_and_stay_apart() -> None:
    told = read({"a": worker()}, {"a": [job(0, DC, call="x", miner=0), job(0, DC, call="y", miner=0)]})
    assert [entry["callId"] for entry in current(told)] == ["x", "y"]


def test_fact_8_jobs_of_a_dropped_worker_that_was_never_seen_are_not_lost() -> None:
    told = read({"a": worker()}, {"gone": [job(1, call="x")]})
    assert (sectors(current(told, UNKNOWN_HOST)), state(told, UNKNOWN_HOST)) == ([1], "unregistered PC1:1")


def test_fact_9_a_disabled_worker_keeps_what_runs_and_gives_back_what_was_assigned() -> None:
    queues = Queues()
    jobs = [job(1, call="x"), job(2, run_wait=ASSIGNED)]
    poll(queues, {"a": worker()}, {"a": jobs})
    told = poll(queues, {"a": worker(enabled=False, tasks=None)}, {"a": jobs[:1]}, [request(2)])
    assert (state(told), sectors(current(told)), pending(told)) == ("disabled PC1:1", [1], [])
    assert told.unassigned["unassignedTasks"] == 1


def test_fact_9_a_host_whose_workers_differ_says_both() -> None:
    told = read({"a": worker(enabled=False), "b": worker()}, {"b": [job(1, call="x")]})
    assert state(told) == "enabled+disabled PC1:1"


def test_fact_10_the_local_worker_and_others_on_its_host_are_one_host() -> None:
    stats = {
        "local": worker("miner01", tasks=(C1, FIN), counts={f"8:{C1}": 1}),
        "b": worker("miner01", tasks=(PC1, C1), counts={f"8:{PC1}": 2, f"8:{C1}": 1}),
    }
    told = read(stats, {"local": [job(1, C1, call="x")], "b": [job(2, call="y"), job(3, call="z")]})
    assert told.hosts["miner01"]["taskType"] == [C1, FIN, PC1]
    assert (state(told, "miner01"), len(current(told, "miner01"))) == ("enabled PC1:2 C1:2", 3)


def test_fact_11_the_host_of_a_worker_is_what_its_stats_say_not_its_rows() -> None:
    told = read({"a": worker()}, {"a": [job(1, call="x", hostname="elsewhere")]})
    assert (set(told.hosts), sectors(current(told))) == ({"seal01"}, [1])


def test_fact_12_an_unknown_start_is_left_out_and_never_overdue() -> None:
    starts = (None, 0, -62_135_596_800_000)
    told = read({"a": worker()}, {"a": [job(n, C1, call=str(n), start=start) for n, start in enumerate(starts)]})
    assert len(current(told)) == 3
    assert all("start" not in entry and "overdue" not in entry for entry in current(told))


# What else is told of an entry, a host and the requests.


def test_an_entry_has_all_that_is_declared() -> None:
    told = read({"a": worker()}, {"a": [job(1, C1, call="x", start=NOW - 61_000)]})
    assert current(told) == [
        {
            "callId": "x",
            "worker": "a",
            "sector": 1,
            "task": C1,
            "taskShort": "C1",
            "state": "running",
            "start": NOW - 61_000,
            "overdue": True,
        }
    ]


def test_a_task_is_overdue_after_its_limit_and_only_when_it_runs() -> None:
    start = NOW - 5 * HOUR_MS
    late = [job(1, call="x", start=start - 1), job(2, run_wait=RET_WAIT, call="y", start=start - 1)]
    others = [job(3, call="z", start=start), job(4, run_wait=ASSIGNED, start=1), job(5, FIN, call="w", start=1)]
    told = read({"a": worker()}, {"a": [*late, *others]})
    overdue = {entry["sector"] for entry in [*current(told), *pending(told)] if entry.get("overdue") is True}
    assert overdue == {1, 2}
    patient = read({"a": worker()}, {"a": late}, overdue_seconds=overdue_seconds(64 * GIB))
    assert not any("overdue" in entry for entry in current(patient))


def test_run_wait_1_was_assigned_before_lotus_had_prepared_tasks() -> None:
    jobs = {"a": [job(1, run_wait=1), job(2, run_wait=2)]}
    states = [[e["state"] for e in pending(read({"a": worker()}, jobs, has_prepared=has))] for has in (True, False)]
    assert states == [["prepared", "assigned"], ["assigned", "assigned"]]


def test_workers_known_under_two_names_are_on_the_host_that_the_mapping_gives() -> None:
    queues = Queues(host_names={"10.0.0.7:3456": "seal01", "pc2": "seal01"})
    stats = {"a": worker("10.0.0.7:3456"), "b": worker("pc2")}
    jobs = {"a": [job(1, call="x")], NO_WORKER: [job(2, PC2, RET_WAIT, call="y", hostname="pc2")]}
    told = poll(queues, stats, jobs)
    assert (set(told.hosts), sectors(current(told))) == ({"seal01"}, [1, 2])


def test_task_types_not_told_this_time_stay_as_they_were() -> None:
    queues = Queues()
    told = [
        poll(queues, {"a": worker(tasks=types), "b": worker(tasks=(C2,))}, {}, session=session)
        for types, session in (((PC1,), "1"), (None, "1"), ((), "1"))
    ]
    assert [one.hosts["seal01"]["taskType"] for one in told] == [[C2, PC1], [C2, PC1], [C2]]


def test_task_types_of_a_host_stay_over_a_miners_restart_until_a_worker_tells() -> None:
    queues = Queues()
    poll(queues, {"a": worker(tasks=(PC1,))}, {})
    told = poll(queues, {"a": worker(tasks=None)}, {}, session="another")
    assert told.hosts["seal01"]["taskType"] == [PC1]


def test_task_types_that_were_never_told_are_left_out() -> None:
    assert "taskType" not in read({"a": worker(tasks=None)}, {}).hosts["seal01"]


def test_a_worker_without_a_name_keeps_the_one_it_had() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {})
    assert set(poll(queues, {"a": worker("")}, {}).hosts) == {"seal01"}
    assert set(read({"a": worker("")}, {}).hosts) == {UNKNOWN_HOST}


def test_requests_stand_by_priority_and_requests_that_were_not_read_say_nothing() -> None:
    told = read({}, {}, [request(3), request(1, PC2, 0), request(2, PC2, 1024), request(4, PC2, -1)])
    queue = told.unassigned["unassignedQueue"]
    assert isinstance(queue, list)
    assert sectors(queue) == [2, 1, 3, 4]
    assert read({}, {}, None).unassigned == {}


def test_requests_that_were_not_read_are_no_removal() -> None:
    queues = Queues()
    poll(queues, {"a": worker()}, {"a": [job(1, GET, call="x")]}, [request(1, GET)])
    poll(queues, {"a": worker()}, {"a": [job(1, GET, call="x")]}, None)
    told = poll(queues, {"a": worker()}, {}, [request(1, GET)])
    assert sectors(current(told)) == [1]  # the request had stood there before, so it is not what became of the job


def test_a_fleet_that_always_changes_does_not_make_the_memory_grow() -> None:
    queues = Queues()
    for n in range(30):
        now = NOW + n * 12 * HOUR_MS
        poll(queues, {f"w{n}": worker(f"h{n}")}, {f"w{n}": [job(n, call=f"c{n}")]}, now_ms=now)
    told = poll(queues, {}, {}, now_ms=now)
    assert len(told.hosts) <= 4
    assert max(len(list(recent)) for recent in (queues._workers, queues._names_by_call)) <= 4


def test_of_too_many_values_those_told_longest_ago_are_forgotten() -> None:
    recent: _Recent[int] = _Recent(2)
    for name in ("a", "b", "c", "a"):
        recent.tell(name, 1, NOW)
    recent.forget_old(NOW)
    assert list(recent) == ["c", "a"]


# The tasks.


def test_every_task_type_has_its_own_short_name_and_others_are_unknown() -> None:
    assert len(set(SHORT_NAMES.values())) == len(SHORT_NAMES)
    assert [short_name(task) for task in (PC1, "", "seal/v9/new")] == ["PC1", "UNK", "UNK"]


def test_short_names_are_listed_in_the_order_of_the_pipeline() -> None:
    assert in_order({"GET", "UNK", "C2", "XX", "PC1", "AP"}) == ["AP", "PC1", "C2", "GET", "UNK", "XX"]


def test_counts_of_one_task_under_several_proofs_add_up_and_waiting_ones_have_no_name() -> None:
    assert counts_by_short_name({f"8:{PC1}": 2, f"9:{PC1}": 1, "8:": 4}) == {"PC1": 3}


def test_sectors_of_64_gib_may_take_twice_as_long_and_what_is_configured_holds() -> None:
    assert overdue_seconds(32 * GIB) == USUAL_SECONDS
    limits = overdue_seconds(64 * GIB, {"PC1": 1.0, "FIN": 2.0})
    assert (limits["PC1"], limits["FIN"], limits["C2"]) == (1.0, 2.0, 3600.0)


# Whatever the rows.

HOSTS = ("seal01", "seal02", "seal03")
UUIDS = ("a", "b", "c", "d", NO_WORKER)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[dict[str, WorkerStat], dict[str, list[Job]], list[Request]]:
    host_of = {uuid: draw(st.sampled_from(HOSTS)) for uuid in UUIDS}
    stats = {uuid: draw(_workers(host_of[uuid])) for uuid in draw(st.sets(st.sampled_from(UUIDS[:-1])))}
    calls = count()
    jobs = {uuid: [draw(_jobs(calls)) for _ in range(draw(st.integers(0, 5)))] for uuid in draw(_some_uuids())}
    return stats, jobs, draw(st.lists(_requests(), max_size=4))


def _some_uuids() -> st.SearchStrategy[set[str]]:
    return st.sets(st.sampled_from(UUIDS))


@st.composite
def _workers(draw: st.DrawFn, hostname: str) -> WorkerStat:
    types = st.lists(st.sampled_from(list(SHORT_NAMES)), max_size=4, unique=True).map(tuple)
    keys = st.sampled_from([f"8:{task}" for task in ("", PC1, GET, WDP)])
    return worker(
        hostname,
        enabled=draw(st.booleans()),
        tasks=draw(st.none() | types),
        counts=draw(st.none() | st.dictionaries(keys, st.integers(0, 5))),
    )


@st.composite
def _jobs(draw: st.DrawFn, calls: Iterator[int]) -> Job:
    run_wait, miner, sector = draw(st.integers(-3, 4)), draw(st.integers(1, 2)), draw(st.integers(0, 3))
    task = draw(st.sampled_from((PC1, PC2, GET, DC, "seal/v9/new")))
    return job(
        sector,
        task,
        run_wait,
        call=f"{miner}-{sector}-{task}-{next(calls)}" if run_wait <= 0 else None,  # the same work in every poll
        start=draw(st.none() | st.integers(-10, 10) | st.integers(NOW - 10 * HOUR_MS, NOW + HOUR_MS)),
        hostname=draw(st.sampled_from(("", "[err]", *HOSTS))),
        miner=miner,
    )


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    priority = draw(st.none() | st.integers(-5, 5))
    return request(draw(st.integers(0, 3)), draw(st.sampled_from((PC1, GET))), priority, miner=draw(st.integers(1, 2)))


Fleet: TypeAlias = tuple[dict[str, WorkerStat], dict[str, list[Job]], list[Request]]


def _rows(jobs: Jobs) -> list[tuple[str, Job]]:
    return [(uuid, row) for uuid, rows in jobs.items() for row in rows]


def _standing(told: Poll, queue: str) -> list[tuple[str, dict[str, Any]]]:
    return [(host, entry) for host in told.hosts for entry in _queue(told, host, queue)]


@given(fleets())
def test_every_row_stands_in_exactly_one_of_current_pending_and_returned(fleet: Fleet) -> None:
    stats, jobs, requests = fleet
    told = read(stats, jobs, requests)
    waits = [row.run_wait for _, row in _rows(jobs)]
    assert len(_standing(told, "currentQueue")) == sum(wait in {RUNNING, RET_WAIT} for wait in waits)
    assert len(_standing(told, "pendingQueue")) == sum(wait > 0 for wait in waits)
    assert told.returned == sum(wait < RET_WAIT for wait in waits)
    listed = [entry for queue in ("currentQueue", "pendingQueue") for _, entry in _standing(told, queue)]
    expected = Counter((uuid, row.sector, row.task, row.call_id) for uuid, row in _rows(jobs) if row.run_wait >= -1)
    assert Counter((e["worker"], e["sector"], e["task"], e.get("callId")) for e in listed) == expected


@given(fleets())
def test_no_job_of_a_host_stands_on_another(fleet: Fleet) -> None:
    stats, jobs, requests = fleet
    told = read(stats, jobs, requests)
    for queue in ("currentQueue", "pendingQueue"):
        for host, entry in _standing(told, queue):
            if entry["worker"] != NO_WORKER:
                known = stats.get(entry["worker"])
                assert host == (UNKNOWN_HOST if known is None else known.hostname)
    named = {row.call_id: row.hostname for row in jobs.get(NO_WORKER, ()) if row.hostname in HOSTS}
    for host, entry in _standing(told, "currentQueue"):
        assert host == named.get(entry.get("callId"), host)


@given(st.lists(fleets(), min_size=1, max_size=4), st.booleans())
def test_no_call_stands_twice_and_the_counts_are_the_lists_over_any_polls(fleet: list[Fleet], restarts: bool) -> None:
    queues = Queues()
    for number, (stats, jobs, requests) in enumerate(fleet):
        told = poll(queues, stats, jobs, requests, session=str(number) if restarts else SESSION)
        calls = [entry["callId"] for _, entry in _standing(told, "currentQueue")]
        assert len(set(calls)) == len(calls)
        for host, fields in told.hosts.items():
            assert fields["runningTasks"] == len(current(told, host))
            assert fields["pendingTasks"] == len(pending(told, host))


@given(fleets(), fleets())
def test_an_entry_is_kept_for_one_poll_and_never_for_two(before: Fleet, after: Fleet) -> None:
    queues = Queues()
    poll(queues, *before)
    poll(queues, *after)
    told = poll(queues, *after)
    expected = _rows(after[1])
    assert len(_standing(told, "currentQueue")) == sum(row.run_wait in {RUNNING, RET_WAIT} for _, row in expected)
    assert len(_standing(told, "pendingQueue")) == sum(row.run_wait > 0 for _, row in expected)


@given(fleets(), fleets())
def test_a_task_stands_no_more_often_than_the_poll_that_had_more_of_it(before: Fleet, after: Fleet) -> None:
    queues = Queues()
    poll(queues, *before)
    told = poll(queues, *after)
    shown = Counter((e["sector"], e["task"]) for q in ("currentQueue", "pendingQueue") for _, e in _standing(told, q))
    most = _works(before[1]) | _works(after[1])
    assert all(number <= sum(n for work, n in most.items() if work[1:] == key) for key, number in shown.items())


def _works(jobs: Jobs) -> Counter[tuple[int, int, str]]:
    return Counter((row.miner, row.sector, row.task) for _, row in _rows(jobs))


@given(st.lists(fleets(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_rows_does_not_matter(polls: list[Fleet], random: Any) -> None:
    queues, shuffled = Queues(), Queues()
    for stats, jobs, requests in polls:
        told = poll(queues, stats, jobs, requests)
        other = poll(
            shuffled,
            dict(_shuffled(random, stats.items())),
            {uuid: _shuffled(random, rows) for uuid, rows in _shuffled(random, jobs.items())},
            _shuffled(random, requests),
        )
        assert other == told


def _shuffled(random: Any, values: Any) -> list[Any]:
    mixed = list(values)
    random.shuffle(mixed)
    return mixed


@given(st.lists(fleets(), min_size=1, max_size=3))
def test_all_values_have_their_declared_types_and_names_and_none_is_null(polls: list[Fleet]) -> None:
    queues = Queues()
    tasks = WORKER_INFO.owned_by(Owner.TASKS)
    for fleet in polls:
        told = poll(queues, *fleet)
        for fields in told.hosts.values():
            assert tasks.keys() - fields.keys() <= {"taskType"}
            assert all(fits(tasks[name].type, value) and has_no_null(value) for name, value in fields.items())
        assert told.unassigned.keys() == {"unassignedQueue", "unassignedTasks"}
        for name, value in told.unassigned.items():
            assert fits(MINER_INFO.by_name[name].type, value)
            assert has_no_null(value)


@settings(max_examples=25)
@given(fleets())
def test_an_unchanged_answer_gives_an_equal_poll(fleet: Fleet) -> None:
    queues = Queues()
    first = poll(queues, *fleet)
    assert poll(queues, *fleet) == first


def test_a_thousand_workers_with_twenty_jobs_each_take_little_time() -> None:
    stats = {f"w{n}": worker(f"h{n // 2}", counts={f"8:{PC1}": 4}) for n in range(1000)}
    jobs = {uuid: [_row_of_many(n, place) for place in range(20)] for n, uuid in enumerate(stats)}
    queues = Queues()
    poll(queues, stats, jobs)
    began = time.process_time()
    poll(queues, stats, dict(list(jobs.items())[500:]))
    assert time.process_time() - began < 3


def _row_of_many(worker_number: int, place: int) -> Job:
    sector = worker_number * 20 + place
    if place < 14:
        return job(sector, PC1, RUNNING, call=f"call-{sector}")
    return job(sector, PC1, ASSIGNED)
