"""Personal data: masked by kind and counted, and numbers that are none are left."""

from __future__ import annotations

import time

from whet import starter
from whet.curation.private import redacted
from wording import each

EMAIL, PHONE, RESIDENT, CARD = "<EMAIL>", "<PHONE>", "<RESIDENT_NUMBER>", "<CARD>"


@each(
    "text, masked",
    [
        ("메일은 hong.gil-dong+a@mail.example.co.kr입니다.", f"메일은 {EMAIL}입니다."),
        ("010-1234-5678로 전화하세요", f"{PHONE}로 전화하세요"),
        ("전화01012345678", f"전화{PHONE}"),
        ("+82 10-1234-5678, 02-123-4567", f"{PHONE}, {PHONE}"),
        ("(02) 123-4567 또는 031.123.4567", f"{PHONE} 또는 {PHONE}"),
        ("+44 20 7946 0958; (415) 555-2671", f"{PHONE}; {PHONE}"),
        ("900101-1234567", RESIDENT),
        ("000229-4234567이다", f"{RESIDENT}이다"),
        ("4111 1111 1111 1111", CARD),
        ("카드 4111-1111-1111-1111을", f"카드 {CARD}을"),
    ],
)
def test_what_is_personal_is_masked(text: str, masked: str) -> None:
    found, counts = redacted(text)
    assert found == masked
    assert counts == {kind: found.count(f"<{kind}>") for kind in counts} and counts
    assert redacted(found) == (found, {})


@each(
    "text",
    [
        "901301-1234567",  # month 13
        "900101-9234567",  # no such digit
        "4111 1111 1111 1112",  # Luhn
        "0000 0000 0000 0000",
        "2026-11-30 12:40:00",
        "1,234,567.89 and 3.14159265358979",
        "192.168.0.1, ISBN 978-3-16-148410-0",
        "a@b, @home, me@localhost",
        "010-12-345",
        "38 - 19 = 19",
    ],
)  # fmt: skip
def test_what_is_not_personal_stays(text: str) -> None:
    assert redacted(text) == (text, {})


def test_the_embedded_models_text_holds_none() -> None:
    assert not any(redacted(text)[1] for text in starter.documents(0, 500))


def test_no_text_takes_long() -> None:
    started = time.process_time()
    for piece in ("a", "1", "@", "1-", "a@a.", "+1 1", "a.", "0 "):
        redacted(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 5
