"""Nearest pictures against plain loops; copies that were planted are found, and draws that are new are not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.core.errors import InputError
from darkroom.metrics import neighbours
from darkroom.metrics.neighbours import NEAR, closeness, memorisation, nearest, thumbprints


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def spread(points: Tensor, training: Tensor) -> Tensor:
    """Distances to the 50 nearest."""
    return nearest(points, training, k=NEAR).distances


class TestNearest:
    def test_as_plain_loops_find_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neighbours, "_QUERIES", 3)
        monkeypatch.setattr(neighbours, "_REFERENCES", 4)
        queries, references = drawn(1, 8, 5), drawn(2, 11, 5)
        found = nearest(queries, references, k=6)
        for row, query in enumerate(queries.tolist()):
            ranked = sorted((math.dist(query, other), place) for place, other in enumerate(references.tolist()))
            assert found.indices[row].tolist() == [place for _, place in ranked[:6]]
            assert found.distances[row].tolist() == pytest.approx([distance for distance, _ in ranked[:6]], rel=1e-12)

    def test_of_several_views_the_nearest_counts(self) -> None:
        references = drawn(3, 20, 4)
        views = torch.stack([drawn(4, 6, 4), references[:6] + 1e-3], dim=1)
        found = nearest(views, references, k=2)
        assert found.indices[:, 0].tolist() == list(range(6))
        assert found.distances[:, 0].tolist() == pytest.approx([2e-3] * 6, rel=1e-9)
        assert (found.distances <= nearest(views[:, 0], references, k=2).distances).all()

    def test_a_far_copy_is_at_distance_nothing(self) -> None:
        """Products of large numbers round; what is answered does not."""
        references = drawn(5, 100, 3).float() + 1e4
        assert nearest(references, references).distances.max() == 0

    def test_equal_distances_keep_the_order(self) -> None:
        found = nearest(np.zeros((1, 2)), np.array([[0.0, 3.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), k=4)
        assert found.indices.tolist() == [[1, 2, 3, 0]]

    @pytest.mark.parametrize(
        ("queries", "references", "k", "says"),
        [
            (torch.zeros(2, 3), torch.zeros(4, 5), 1, "cannot be found"),
            (torch.zeros(2, 3), torch.zeros(4, 3), 5, "5 neighbours among 4"),
            (torch.zeros(2, 3), torch.zeros(4, 3), 0, "1 to 4 do"),
            (torch.zeros(3), torch.zeros(4, 3), 1, "a row per picture"),
            (torch.full((2, 3), math.nan), torch.zeros(4, 3), 1, "not finite"),
        ],
    )
    def test_what_does_not_fit_is_named(self, queries: Tensor, references: Tensor, k: int, says: str) -> None:
        with pytest.raises(InputError, match=says):
            nearest(queries, references, k=k)


class TestThumbprints:
    def test_black_against_white_is_one(self) -> None:
        black, white = thumbprints(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 40, 24))
        assert float((black - white).norm()) == pytest.approx(1, abs=1e-6)

    def test_the_distance_is_the_root_mean_square_difference(self) -> None:
        one, other = drawn(6, 2, 3, 16, 16).clamp(-1, 1)
        prints = thumbprints(torch.stack([one, other]))
        wanted = ((one - other) / 2).square().mean().sqrt()
        assert float((prints[0] - prints[1]).norm()) == pytest.approx(float(wanted), rel=1e-5)

    def test_what_cannot_be_seen_does_not_count(self) -> None:
        colours = drawn(7, 2, 3, 16, 16).clamp(-1, 1)
        clear, full = (torch.full((2, 1, 16, 16), level) for level in (-1.0, 1.0))
        assert thumbprints(torch.cat([colours, clear], dim=1)).abs().max() == 0
        assert torch.equal(thumbprints(torch.cat([colours, full], dim=1)), thumbprints(colours))

    @pytest.mark.parametrize("side", [8, 16, 100])
    def test_any_size_and_grey(self, side: int) -> None:
        assert thumbprints(torch.zeros(2, 1, side, side)).shape == (2, 256)


class TestCloseness:
    def test_by_hand(self) -> None:
        values = closeness(torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0], [0.0, 0.0]]))
        assert values.tolist() == [0.5, 1, 0, 1]

    def test_a_plain_picture_is_near_to_many_and_no_copy(self) -> None:
        """The same distance means nothing in a crowd and much in the open."""
        crowd, open_land = drawn(8, 200, 32) * 0.01, 5 + drawn(9, 200, 32)
        new, copied = drawn(10, 1, 32) * 0.01, open_land[:1] + 0.01
        distances = spread(torch.cat([new, copied]), torch.cat([crowd, open_land]))
        plain, suspicious = closeness(distances).tolist()
        assert distances[0, 0] < distances[1, 0]
        assert plain > 0.5
        assert suspicious < 0.05


class TestMemorisation:
    training = drawn(11, 2000, 24)
    unseen = spread(drawn(12, 300, 24), training)

    def test_planted_copies_are_found_and_new_draws_are_not(self) -> None:
        copies = self.training[:10] + 0.02 * drawn(13, 10, 24)
        found = memorisation(spread(torch.cat([drawn(14, 40, 24), copies]), self.training), self.unseen)
        assert found.copied == (False,) * 40 + (True,) * 10
        assert (found.copies, found.evident, found.duplicates) == (10, True, 0)

    def test_new_draws_are_called_copies_as_rarely_as_promised(self) -> None:
        """r / (m + 1) at most; in few dimensions neighbours are close by chance, and the limit follows."""
        shares: list[float] = []
        for seed in range(20):
            training, unseen, new = (drawn(100 * seed + part, 400, 5) for part in range(3))
            found = memorisation(spread(new, training), spread(unseen, training))
            shares.append(found.copies / 400)
        assert np.mean(shares) == pytest.approx(4 / 401, abs=0.004)

    def test_a_small_group_of_duplicates_hides_no_copy(self) -> None:
        """Six skin tones of one picture: the nearest picture's own neighbour is as near as a copy would be."""
        tones = self.training[:1] + 0.3 * drawn(15, 6, 24)
        training = torch.cat([self.training, tones])
        found = memorisation(spread(tones[:1] + 0.05, training), spread(drawn(12, 300, 24), training))
        assert found.copied == (True,)

    def test_duplicates_across_the_split_do_not_blunt_the_rule(self) -> None:
        leaked = torch.cat([drawn(12, 270, 24), self.training[:30]])
        copies = self.training[50:54] + 0.02 * drawn(16, 4, 24)
        found = memorisation(
            spread(torch.cat([copies, drawn(17, 4, 24)]), self.training), spread(leaked, self.training)
        )
        assert found.copied == (True,) * 4 + (False,) * 4
        assert (found.duplicates, found.unseen, found.evident) == (30, 300, True)

    def test_copies_as_frequent_as_among_the_unseen_are_not_evident(self) -> None:
        half = torch.cat([drawn(18, 50, 24), self.training[:50]])
        found = memorisation(spread(half, self.training), spread(half, self.training))
        assert found.copies >= 50
        assert not found.evident
        assert found.unseen_copied == found.copies

    def test_what_the_rule_can_see_is_counted(self) -> None:
        near, far = self.training[:20] + 0.02, drawn(19, 20, 24)
        found = memorisation(self.unseen[:5], self.unseen, copies=spread(torch.cat([near, far]), self.training))
        assert (found.known, found.found) == (40, 20)

    def test_nearer_is_a_half_for_equals_and_one_for_copies(self) -> None:
        assert memorisation(self.unseen, self.unseen).nearer == pytest.approx(0.5)
        copied = memorisation(spread(self.training[:9] + 1e-4, self.training), self.unseen)
        assert copied.nearer == 1
        assert copied.distance < 0.01 < copied.unseen_distance

    def test_luck_is_the_binomial_tail(self) -> None:
        found = memorisation(self.unseen[:16], self.unseen)
        assert (found.copies, found.luck) == (0, 1)
        rate = max(found.chance, found.unseen_copied / 300)
        for copies, tail in ((1, 1 - (1 - rate) ** 16), (16, rate**16)):
            marked = replace(found, copied=(True,) * copies + (False,) * (16 - copies))
            assert marked.luck == pytest.approx(tail, abs=1e-12)
        assert replace(found, copied=(True, False) * 5000).luck < 1e-9
        assert replace(found, copied=(True,), unseen_copied=300).luck == 1

    def test_one_unseen_picture_is_a_rule_too_and_none_is_refused(self) -> None:
        found = memorisation(spread(self.training[:3] + 1e-3, self.training), self.unseen[:1])
        assert found.copied == (True,) * 3
        assert found.limit <= 0.5
        with pytest.raises(InputError, match="0 unseen pictures"):
            memorisation(self.unseen, self.unseen[:0])

    def test_where_every_unseen_picture_is_a_duplicate_the_rule_is_strict(self) -> None:
        leaked = spread(self.training[:5], self.training)
        found = memorisation(self.unseen, leaked)
        assert (found.limit, found.copies, found.evident) == (0.1, 0, False)
