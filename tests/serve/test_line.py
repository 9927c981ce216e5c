"""The queue: nobody is lost or drawn twice, clients take turns, and what is alike shares a batch."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from darkroom.serve.line import Line, Waiting


def waiting(job: str, *, client: str = "a", kind: str = "k", most: int = 4, count: int = 1) -> Waiting:
    return Waiting(job, client, kind, most, deque(range(count)))


def line_of(*each: Waiting) -> Line:
    line = Line()
    for one in each:
        line.add(one)
    return line


def all_of(line: Line) -> list[list[tuple[str, int]]]:
    batches: list[list[tuple[str, int]]] = []
    while taken := line.take():
        batches.append(taken)
    return batches


def test_a_client_with_many_jobs_does_not_keep_others_waiting() -> None:
    greedy = [waiting(f"g{number}", client="greedy", kind=f"k{number}") for number in range(5)]
    line = line_of(*greedy, waiting("m", client="modest", kind="other"))
    assert line.ahead("m") == 1
    assert [batch[0][0] for batch in all_of(line)] == ["g0", "m", "g1", "g2", "g3", "g4"]


def test_one_clients_jobs_come_in_their_order() -> None:
    line = line_of(*(waiting(f"{number}", kind=f"{number % 2}", most=1) for number in range(6)))
    assert [line.ahead(f"{number}") for number in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [job for batch in all_of(line) for job, _ in batch] == ["0", "1", "2", "3", "4", "5"]


def test_alike_jobs_share_a_batch_and_clients_share_it_evenly() -> None:
    line = line_of(
        waiting("big", count=9), waiting("b", client="b", count=2), waiting("c", client="c"), waiting("odd", kind="x")
    )
    assert line.take() == [("big", 0), ("b", 0), ("c", 0), ("big", 1)]
    assert line.take() == [("b", 1), ("big", 2), ("big", 3), ("big", 4)]
    assert line.ahead("odd") == 1
    assert line.take() == [("big", 5), ("big", 6), ("big", 7), ("big", 8)]
    assert line.take() == [("odd", 0)]
    assert line.take() == []
    assert len(line) == 0


def test_a_removed_job_is_never_drawn() -> None:
    line = line_of(waiting("a"), waiting("b"), waiting("c", client="c"))
    assert line.remove("b")
    assert not line.remove("b")
    assert line.ahead("b") is None
    assert line.remove("c")
    assert line.of("c") == 0
    assert all_of(line) == [[("a", 0)]]


def test_whoever_is_put_first_leads_its_clients_next_batch() -> None:
    line = line_of(waiting("a", kind="x"), waiting("b", kind="y"))
    line.add(waiting("again", kind="z"), first=True)
    assert [batch[0][0] for batch in all_of(line)] == ["again", "a", "b"]


Kinds = {"x": 1, "y": 3, "z": 8}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("xyz"), st.integers(1, 9)), max_size=30))
def test_everything_is_drawn_once_in_batches_of_one_kind(jobs: list[tuple[str, str, int]]) -> None:
    line, kinds, due = Line(), {}, Counter()
    for number, (client, kind, count) in enumerate(jobs):
        line.add(waiting(f"{number}", client=client, kind=kind, most=Kinds[kind], count=count))
        kinds[f"{number}"] = kind
        due.update((f"{number}", place) for place in range(count))
    batches = all_of(line)
    assert Counter(each for batch in batches for each in batch) == due
    for batch in batches:
        (kind,) = {kinds[job] for job, _ in batch}
        assert len(batch) <= Kinds[kind]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=20), st.data())
def test_nobody_leads_later_than_was_said(jobs: list[tuple[str, str]], data: st.DataObject) -> None:
    line = Line()
    for number, (client, kind) in enumerate(jobs):
        line.add(waiting(f"{number}", client=client, kind=kind, most=2))
    chosen = f"{data.draw(st.integers(0, len(jobs) - 1))}"
    ahead = line.ahead(chosen)
    assert ahead is not None
    place = next(place for place, batch in enumerate(all_of(line)) if chosen in [job for job, _ in batch])
    assert place <= ahead
