"""Personal data in a text: e-mail addresses, phone numbers, Korean resident registration numbers, card numbers.

Found by their form and, where there is one, by their check: a resident registration number has a date and a digit for
century and sex; a card number satisfies Luhn's rule. Names and addresses are not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}(?![\w-])", re.IGNORECASE | re.ASCII)
_RESIDENT = re.compile(r"(?<![\d-])\d{2}(\d{2})(\d{2})[ ]?-[ ]?[1-8]\d{6}(?![\d-])", re.ASCII)
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d-])", re.ASCII)
# Korean: mobile, Seoul, other areas, internet; with or without the country's number. Others: with a plus and the
# country's number, or as in North America.
_PHONE = re.compile(
    r"(?<![\w.,+-])(?:"
    r"(?:\+82[ .-]?(?:\(0\))?[ .-]?|0)(?:1[016-9]|2|[3-6][1-5]|70|50\d)[ .)-]{1,2}\d{3,4}[ .-]\d{4}"
    r"|(?:\+82[ .-]?|0)1[016-9]\d{7,8}"
    r"|\(0(?:2|[3-6][1-5]|70)\)[ ]?\d{3,4}[ .-]\d{4}"
    r"|\+(?!82)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}"
    r"|(?:1[ .-])?(?:\([2-9]\d{2}\)[ ]?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}"
    r")(?![\w-])",
    re.IGNORECASE | re.ASCII,
)


def _is_date(found: re.Match[str]) -> bool:
    return 1 <= int(found[1]) <= 12 and 1 <= int(found[2]) <= 31


def _is_card(found: re.Match[str]) -> bool:
    """Luhn's rule; numbers of one digit alone, which it lets pass, are none."""
    digits = [int(letter) for letter in found[0] if letter != " " and letter != "-"]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_long(found: re.Match[str]) -> bool:
    return sum(letter.isdigit() for letter in found[0]) >= 8


# In the order in which they are looked for: what one has taken is no other's.
KINDS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]] = {
    "EMAIL": (_EMAIL, lambda found: True),
    "RESIDENT_NUMBER": (_RESIDENT, _is_date),
    "CARD": (_CARD, _is_card),
    "PHONE": (_PHONE, _is_long),
}


def redacted(text: str) -> tuple[str, dict[str, int]]:
    """A text in which `<EMAIL>`, `<PHONE>` and so on stand for personal data, and how many there were of each kind."""
    counts: dict[str, int] = {}
    for kind, (pattern, is_one) in KINDS.items():

        def mask(found: re.Match[str], kind: str = kind, is_one: Callable[[re.Match[str]], bool] = is_one) -> str:
            if not is_one(found):
                return found[0]
            counts[kind] = counts.get(kind, 0) + 1
            return f"<{kind}>"

        text = pattern.sub(mask, text)
    return text, counts
