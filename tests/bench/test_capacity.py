"""That the model of docs/capacity.md does what it says, and that the page has its tables."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from bench import capacity
from bench.capacity import Costs, alive, asked, masters_for, predicted, put, simulate, solved
from bench.capacity import spent_of_lease as spent

COSTS = Costs(
    wake_us=4, command_us=5, check_us=1, turn_us=10, client_us=2, client_cluster_us=3,
    bytes_a_key=150,
)  # fmt: skip


def test_three_costs_are_found_from_three_measurements() -> None:
    ways = [(1.0, 1.0), (1 / 250, 1 / 256), (1 / 100, 1.0)]
    rows = [(reads, commands, 1.0, predicted(COSTS, reads, commands)) for reads, commands in ways]
    assert solved(rows) == pytest.approx([4, 5, 1])


def test_a_server_works_as_long_as_its_checks_take() -> None:
    found = simulate(20_000, 1, 4, COSTS, clustered=False)
    assert found.server == pytest.approx(20_000 * 10e-6, rel=0.05)
    assert found.client == pytest.approx(5_000 * 12e-6, rel=0.05)


def test_an_idle_server_takes_the_way_and_the_work() -> None:
    found = simulate(100, 1, 1, COSTS, clustered=False, network_us=100, checks=2000)
    assert found.p50_us == pytest.approx(12 + 100 + 10 + 100)


def test_load_costs_time() -> None:
    latencies = [simulate(rate, 1, 8, COSTS, clustered=False).p99_us for rate in (10**4, 9 * 10**4)]
    assert latencies[1] > latencies[0] + 20


def test_what_is_made_at_once_shares_a_command_but_not_in_a_cluster() -> None:
    one = simulate(100_000, 1, 1, COSTS, clustered=False, burst=100)
    assert one.server == pytest.approx(100_000 * (1 + 9 / 100) * 1e-6, rel=0.1)
    many = simulate(100_000, 1, 1, COSTS, clustered=True, burst=100)
    assert many.server == pytest.approx(100_000 * (6 + 4 / 100) * 1e-6, rel=0.1)


def test_the_fewest_masters_that_are_not_too_busy() -> None:
    count, found = masters_for(500_000, 8, COSTS)
    assert found.server <= capacity.FULL + 0.02
    assert simulate(500_000, count - 1, 8, COSTS, clustered=True).server > capacity.FULL - 0.02


@pytest.mark.parametrize("expected", [0.01, 1.0, 40.0, 99.0, 130.0, 5000.0])
def test_what_a_lease_serves_before_it_lapses(expected: float) -> None:
    rng = random.Random(3)

    def served() -> int:
        """Checks at random; a second is `expected` of them long."""
        at, count = rng.expovariate(1), 1
        while at < expected and count < 100:
            at += rng.expovariate(1)
            count += 1
        return count

    trials = [served() for _ in range(3000)]
    assert spent(expected, 100) == pytest.approx(sum(trials) / len(trials), rel=0.03)


def test_leases_save_where_a_key_is_checked_often() -> None:
    assert asked(10**6, 10**8, 64, 100, 0.0) == pytest.approx(1, abs=0.01)
    assert asked(10**6, 10, 1, 100, 0.0) == pytest.approx(0.01)
    skewed = asked(10**6, 10**8, 64, 100, 1.0)
    assert 0.3 < skewed < 0.8
    assert asked(10**6, 10**8, 8, 100, 1.0) < skewed  # each process has more of a key


def test_keys_live_while_their_state_does() -> None:
    assert alive(10**6, 10**8, 86.4, 86400.0) == pytest.approx(
        10**8, rel=0.01
    )  # till the grid's end
    assert alive(10**6, 10**8, 0.2, 4.0) == pytest.approx(10**6 * (0.2 + 1.048576 / 2), rel=0.01)


def test_a_dearer_server_is_told() -> None:
    dear = replace(COSTS, command_us=20)
    assert masters_for(200_000, 8, dear)[0] > masters_for(200_000, 8, COSTS)[0]


def test_tables_are_put_in_their_places() -> None:
    page = "a\n<!-- costs -->\nold\n<!-- /costs -->\nb\n"
    assert put(page, {"costs": "new\n"}) == "a\n<!-- costs -->\nnew\n<!-- /costs -->\nb\n"
    with pytest.raises(ValueError, match="no place for other"):
        put(page, {"other": ""})


def test_the_page_has_the_tables_of_its_figures() -> None:
    page = capacity.PAGE.read_text("utf-8")
    assert put(page, capacity.tables(json.loads(capacity.FIGURES.read_text("utf-8")))) == page
