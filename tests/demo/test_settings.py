"""Settings of the demo that make no sense are told when they are made, in one line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from sluicegate.cli.group import cli


@pytest.mark.parametrize(
    ("option", "value", "wrong"),
    [
        ("--messages", "a: 5/second; a: 6/minute", "two quotas are named 'a'"),
        ("--messages", "5 a second", "bad rate string"),
        ("--connections", "; ".join(["5/second"] * 9), "at most 8 quotas|1 to 8 quotas"),
        ("--concurrent", "99999999999999", "max_concurrent_connections is 1 to"),
        ("--max-message-size", "99999999999999999999", "max_message_size is 1 to"),
    ],
)
def test_what_makes_no_sense_is_told(option: str, value: str, wrong: str) -> None:
    done = CliRunner().invoke(cli, ["demo", "--port", "0", option, value])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    assert any(part in done.stderr for part in wrong.split("|")), done.stderr
