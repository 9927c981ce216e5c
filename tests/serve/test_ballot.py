"""What voters are asked: a function of poll and voter, in every order and on both sides; checks that nobody misses."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from polls import choice, fill, poll_of, side_of, two_folders

from darkroom.core.errors import InputError
from darkroom.serve.ballot import broken, find_pairs, picture, sheet
from darkroom.serve.tally import count, told
from darkroom.serve.votes import FILE, Vote, Votes


def test_a_sheet_is_a_function_of_poll_and_voter(tmp_path: Path) -> None:
    poll = poll_of(two_folders(tmp_path, count=8), questions=6, checks=0.5)
    asked = sheet(poll, voter=3)
    assert asked == sheet(poll, voter=3)
    assert asked != sheet(poll, voter=4)
    assert asked != sheet(poll.model_copy(update={"seed": 1}), voter=3)
    assert [each.number for each in asked] == list(range(9))
    assert sum(each.check for each in asked) == 3
    plain = [each.pair for each in asked if not each.check]
    assert len(set(plain)) == 6
    assert sheet(poll.model_copy(update={"checks": 0.0}), voter=3)[0].check is False
    assert sum(each.check for each in sheet(poll.model_copy(update={"checks": 0.01}), voter=3)) == 1


def test_sides_and_orders_are_even(tmp_path: Path) -> None:
    poll = poll_of(two_folders(tmp_path, count=10), checks=0.2)
    sheets = [sheet(poll, voter=voter) for voter in range(1, 301)]
    left = Counter(each.left for asked in sheets for each in asked)
    assert abs(left["first"] - left["second"]) < 4 * 3000**0.5
    whole = left["broken first"] + left["broken second"]
    assert abs(whole - 300) < 4 * 150**0.5  # of 600 checks
    for place in (0, 5):
        asked = Counter(each[place].pair for each in sheets)
        assert all(abs(asked[pair] - 30) < 25 for pair in range(10))


def test_pictures_are_paired_by_name_or_in_order(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", count=4, level=9), fill(tmp_path / "two", count=4, level=99, first=2)
    assert [(pair.name, pair.second.name) for pair in find_pairs(one, two)] == [("2", "2.png"), ("3", "3.png")]
    far = fill(tmp_path / "far", count=3, level=99, first=50)
    assert [(pair.name, pair.second.name) for pair in find_pairs(one, far)] == [
        ("0", "50.png"),
        ("1", "51.png"),
        ("2", "52.png"),
    ]
    small = fill(tmp_path / "small", count=3, level=0, side=8)
    assert [pair.between and pair.between.name for pair in find_pairs(one, two, between=small)] == ["2.png"]


def test_what_does_not_fit(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", count=2, level=9), fill(tmp_path / "two", count=2, level=99)
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(one, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures here"):
        find_pairs(tmp_path / "empty", two)
    with pytest.raises(InputError, match="no name of a picture is shared"):
        find_pairs(one, two, between=fill(tmp_path / "others", count=2, level=0, first=7))
    with pytest.raises(InputError, match="32x32 and 48x48: voters would tell them apart"):
        find_pairs(one, fill(tmp_path / "large", count=2, level=0, side=48))
    (two / "0.jpg").write_bytes((two / "0.png").read_bytes())
    with pytest.raises(InputError, match=r"0\.jpg and 0\.png have one name"):
        find_pairs(one, two)
    (one / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"one/1\.png: the picture cannot be used"):
        find_pairs(one, fill(tmp_path / "three", count=2, level=0))


def test_a_broken_copy_differs_everywhere_and_pictures_tell_nothing(tmp_path: Path) -> None:
    for pixels in (
        np.full((37, 50, 3), 90, np.uint8),
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8),
    ):
        whole = Image.fromarray(pixels)
        found = broken(whole)
        assert found.size == whole.size
        assert np.abs(np.asarray(found).astype(int) - pixels).mean() > 15
    (pair,) = two_folders(tmp_path, count=1)
    notes = PngInfo()
    notes.add_text("darkroom", "model shapes")
    Image.open(pair.first).save(pair.first, pnginfo=notes)
    shown = Image.open(io.BytesIO(picture(pair, "first")))
    assert shown.info == {}
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(pair.first)))
    assert picture(pair, "broken second") != picture(pair, "second")


def test_200_voters_with_a_known_bias_and_20_who_do_not_look(tmp_path: Path) -> None:
    poll = poll_of(two_folders(tmp_path, count=20), questions=6, checks=0.5)
    votes = Votes(tmp_path / "votes", poll, clock=lambda: 5.0)
    for voter in range(1, 221):
        number = votes.voter(votes.enter())
        assert number == voter
        for question in sheet(poll, voter=voter):
            side = choice(question, voter, likes_first=0.304, attentive=voter <= 200)  # as LDM-4 beside real pictures
            assert votes.vote(voter, question.number, side=side, seconds=1.5) == side
    found = count(poll, votes.all())
    assert found.voters == 220
    assert 200 <= found.attentive <= 206  # three coins fall right now and then
    assert found.first is not None
    assert found.first.low < 0.304 < found.first.high
    assert found.first.high - found.first.low < 0.06
    assert found.first.chance < 1e-30
    assert found.everybody is not None
    assert found.everybody.count == 1320
    assert found.left is not None
    assert found.left.low < 0.5 < found.left.high
    assert found.seconds == 1.5
    said = told(poll, found)
    assert f"one chosen {found.first.chosen} of {found.first.count} times" in said
    assert "220 voters" in said


def test_the_interval_covers_the_truth_as_often_as_it_says(tmp_path: Path) -> None:
    poll = poll_of(two_folders(tmp_path, count=10), checks=0.0)
    covered = 0
    for study in range(100):
        votes = {
            voter: {
                each.number: Vote(choice(each, 1000 * study + voter, likes_first=0.7), 1.0)
                for each in sheet(poll, voter=voter)
            }
            for voter in range(1, 11)
        }
        share = count(poll, votes).first
        assert share is not None
        covered += share.low < 0.7 < share.high
    assert 90 <= covered <= 99


def test_votes_are_kept_once_and_go_on_after_a_restart(tmp_path: Path) -> None:
    pairs = two_folders(tmp_path)
    poll = poll_of(pairs)
    votes = Votes(tmp_path / "votes", poll)
    name = votes.enter()
    assert votes.vote(1, 0, side="left", seconds=1.0) == "left"
    assert votes.vote(1, 0, side="right", seconds=1.0) == "left"  # sent again, or thought better of
    votes.close()
    again = Votes(tmp_path / "votes", poll)
    assert again.voter(name) == 1
    assert again.voter("somebody") is None
    assert again.given(1) == {0: Vote("left", 1.0)}
    assert again.voter(again.enter()) == 2
    assert again.all() == {1: {0: Vote("left", 1.0)}, 2: {}}
    with pytest.raises(InputError, match=r"votes on something else are kept here \(question differ\)"):
        Votes(tmp_path / "votes", poll_of(pairs, question="Who?"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(InputError, match="cannot be used as a database of votes"):
        Votes(tmp_path / "other", poll)


def test_nobody_voted_yet(tmp_path: Path) -> None:
    poll = poll_of(two_folders(tmp_path), real=True)
    found = count(poll, {})
    assert (found.voters, found.first, found.seconds) == (0, None, None)
    assert "no vote yet" in told(poll, found)
    assert "50 % is what one would have" in told(poll, found)
    question = next(each for each in sheet(poll, voter=1) if not each.check)
    unproven = count(poll, {1: {question.number: Vote(side_of(question, "first"), 1.0)}})
    assert (unproven.attentive, unproven.first) == (0, None)  # met no check yet
    assert unproven.everybody is not None
    assert unproven.everybody.chosen == 1
