"""Rate strings: what each stands for, and what a wrong one says."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import Limiter, Quota, parse_quotas, parse_size
from sluicegate.quota import ALGORITHMS
from sluicegate.rates import UNITS


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("100/minute", Quota(100, 60)),
        ("10 per 5 seconds", Quota(10, 5)),
        ("10/5 seconds", Quota(10, 5)),
        ("10/5s", Quota(10, 5)),
        ("100 per minute", Quota(100, 60)),
        ("100per minute", Quota(100, 60)),
        ("5/second burst 20", Quota(5, 1, burst=20)),
        ("1MB/minute", Quota(1024 * 1024, 60, name="bytes")),
        ("64 KB per second", Quota(65536, 1, name="bytes")),
        ("2GB/day", Quota(2 * 1024**3, 86400, name="bytes")),
        ("1.5KB/s", Quota(1536, 1, name="bytes")),
        ("300 bytes/s", Quota(300, 1, name="bytes")),
        ("1MB/minute burst 2MB", Quota(1024**2, 60, burst=2 * 1024**2, name="bytes")),
        ("1MB/minute burst 3000000", Quota(1024**2, 60, burst=3_000_000, name="bytes")),
        ("upload: 1MB/minute", Quota(1024**2, 60, name="upload")),
        ("60/hour using fixed-window", Quota(60, 3600, algorithm="fixed-window")),
        ("60/hour using sliding-log", Quota(60, 3600, algorithm="sliding-log")),
        ("5/s using gcra burst 9", Quota(5, 1, burst=9)),
        ("5/s burst 9 using gcra", Quota(5, 1, burst=9)),
        ("chat: 5/second", Quota(5, 1, name="chat")),
        ("chat room : 5 / second", Quota(5, 1, name="chat room")),
        ("1_000/min", Quota(1000, 60)),
        ("  5/SECOND  ", Quota(5, 1)),
        ("5/second;", Quota(5, 1)),
        ("1/100ms", Quota(1, 0.1)),
        ("1/0.25 seconds", Quota(1, 0.25)),
        ("3/2 weeks", Quota(3, 1209600)),
        ("1/d", Quota(1, 86400)),
        ("1/h", Quota(1, 3600)),
    ],
)
def test_a_rate_string_stands_for_its_quota(text: str, quota: Quota) -> None:
    parsed = Quota.parse(text)
    assert parsed == quota
    assert type(parsed) is Quota


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_every_unit(unit: str) -> None:
    assert Quota.parse(f"7/{unit}").period == float(UNITS[unit])


def test_several_are_joined_by_semicolons() -> None:
    assert parse_quotas("messages: 5/second burst 20; bytes: 1MB/minute;100/hour") == [
        Quota(5, 1, burst=20, name="messages"),
        Quota(1024**2, 60, name="bytes"),
        Quota(100, 3600),
    ]
    with pytest.raises(ValueError, match="one quota"):
        Quota.parse("5/second; 100/hour")


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", 0, "expected a number"),
        ("fast", 0, "expected a number"),
        ("5", 1, "expected `/` or `per`"),
        ("5 second", 2, "expected `/` and a period"),
        ("5/fortnight", 2, "expected a period: ms, second"),
        ("5/m", 2, "expected a period: ms, second"),
        ("5/", 2, "expected a period"),
        ("5/0 seconds", 2, "above 0"),
        ("0/second", 0, "above 0"),
        ("-5/second", 0, "without a sign"),
        ("0.5/second", 0, "1/2 seconds"),
        ("nan/second", 0, "expected a number"),
        ("inf/second", 0, "expected a number"),
        ("1e9/second", 1, "size in B, KB"),
        ("10k/minute", 2, "size in B, KB"),
        ("5/second burst", 14, "expected a number after `burst`"),
        ("5/second burst 0", 15, "above 0"),
        ("5/second burst 2KB", 15, "without a size"),
        ("5/second burst 2 burst 3", 17, "expected `burst`, `using`"),
        ("5/second using token-bucket", 15, "expected one of gcra, fixed-window"),
        ("5/second quickly", 9, "expected `burst`, `using`"),
        ("5/second, 100/hour", 8, "expected `burst`, `using`"),
        ("5/second; ; 1/hour", 10, "expected a number"),
        ("5/second; 100/yeer", 14, "expected a period"),
        ("2/20 years", 5, "expected a period"),
        ("2/600 weeks", 2, "10 years"),
        ("9999999999999/second", 0, "2**40"),
        ("9999999999999999999/second", 0, "at most 18 digits"),
        ("x: 5/second using fixed-window burst 9", 37, "only gcra"),
        ("٥/second", 0, "expected a number"),
    ],
)
def test_a_bad_one_is_shown_with_the_place(text: str, at: int, says: str) -> None:
    with pytest.raises(ValueError, match="rate string") as error:
        parse_quotas(text)
    problem, shown, caret = str(error.value).split("\n")
    assert says in problem
    assert shown.removeprefix("    ") == text
    assert caret == " " * (4 + at) + "^"
    with pytest.raises(ValueError, match="rate string"):
        Limiter(text)


def test_a_long_or_a_strange_one_is_cut_and_shown_on_one_line() -> None:
    with pytest.raises(ValueError, match="rate string") as error:
        parse_quotas("5/second; " * 1000 + "5/never\n\x1b[31m")
    _, shown, caret = str(error.value).split("\n")
    assert len(shown) < 120
    assert shown[caret.index("^") :].startswith("never")
    assert "\x1b" not in shown
    with pytest.raises(ValueError, match="18 digits"):
        parse_quotas("9" * 1_000_000 + "/second")


@pytest.mark.parametrize("wrong", [5, None, b"5/second", ["5/second"]])
def test_what_is_no_string_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError):
        Quota.parse(wrong)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_no_text_does_anything_but_parse_or_raise_value_error(text: str) -> None:
    try:
        quotas = parse_quotas(text)
    except ValueError as error:
        assert "^" in str(error)
    else:
        assert quotas


@given(
    st.integers(1, 10**7),
    st.sampled_from(["s", "minute", "hours", "d", "250ms", "5 seconds"]),
    st.none() | st.integers(1, 10**6),
    st.sampled_from(ALGORITHMS),
    st.none() | st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True),
)
def test_what_is_written_is_read(
    limit: int, unit: str, burst: int | None, algorithm: str, name: str | None
) -> None:
    if algorithm != "gcra":
        burst = None
    text = f"{limit}/{unit}"
    text += "" if burst is None else f" burst {burst}"
    text += f" using {algorithm}"
    quota = Quota.parse(text if name is None else f"{name}: {text}")
    assert (quota.limit, quota.burst, quota.algorithm, quota.name) == (
        limit,
        burst or limit,
        algorithm,
        name,
    )


@pytest.mark.parametrize(
    ("size", "number"),
    [("64KB", 65536), ("1 MB", 1048576), ("512", 512), (512, 512), ("1.5kb", 1536), ("7B", 7)],
)
def test_sizes(size: str | int, number: int) -> None:
    assert parse_size(size) == number


@pytest.mark.parametrize("size", ["", "KB", "64KX", "64KB/s", "-1KB", "0", 0, -5, "0.3B"])
def test_bad_sizes(size: str | int) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(size)


@pytest.mark.parametrize("size", [None, 1.5, True, b"64KB"])
def test_sizes_of_a_wrong_type(size: object) -> None:
    with pytest.raises(TypeError, match="size"):
        parse_size(size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, 1), {}),
        ((-1, 1), {}),
        ((2**41, 1), {}),
        ((1, 0), {}),
        ((1, -1), {}),
        ((1, float("nan")), {}),
        ((1, float("inf")), {}),
        ((1, 1e300), {}),
        ((1, 10**400), {}),
        ((10**400, 1), {}),
        ((1, 1), {"burst": 0}),
        ((1, 1), {"burst": 10**400}),
        ((1, 1), {"algorithm": "leaky"}),
        ((1, 1), {"burst": 2, "algorithm": "sliding-log"}),
    ],
)
def test_numbers_that_make_no_quota_are_refused_when_it_is_made(
    arguments: tuple[int, float], options: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        Quota(*arguments, **options)  # type: ignore[arg-type]


def test_a_quota_is_a_value() -> None:
    quota = Quota(5, 1, burst=20, name="chat", shadow=True)
    assert quota == Quota(5, 1.0, burst=20, name="chat", shadow=True)
    assert quota != Quota(5, 1, burst=20, name="chat")
    assert len({quota, copy.copy(quota), pickle.loads(pickle.dumps(quota))}) == 1
    assert repr(quota) == "Quota(5, 1.0, burst=20, name='chat', shadow=True)"
    assert eval(repr(quota)) == quota
    with pytest.raises(AttributeError):
        quota.limit = 6  # type: ignore[misc]
    match quota:
        case Quota(limit, period, burst):
            assert (limit, period, burst) == (5, 1.0, 20)
        case _:
            pytest.fail("does not match")


def test_a_subclass_parses_to_itself() -> None:
    class Mine(Quota):
        pass

    assert type(Mine.parse("5/second burst 7")) is Mine
    assert Mine.parse("5/second burst 7").burst == 7
